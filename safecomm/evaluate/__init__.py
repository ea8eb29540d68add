"""From an adapter to rates: engines, judges, metrics."""
