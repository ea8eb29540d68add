"""The sweep: its trials carried out on Ray Tune, tracked, and published."""
