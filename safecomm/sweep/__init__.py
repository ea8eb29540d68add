"""The trials of a sweep: what is tried, in which order, and what came of it."""
