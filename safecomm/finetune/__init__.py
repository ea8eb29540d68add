"""From data to an adapter: Ray Train workers with DeepSpeed."""
