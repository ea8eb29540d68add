"""The plan of a sweep: its trials, their placement and the memory that they need, before anything runs."""
