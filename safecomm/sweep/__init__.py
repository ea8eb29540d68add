"""The sweep: its trials carried out on Ray Tune, their records, and what is published of them."""
