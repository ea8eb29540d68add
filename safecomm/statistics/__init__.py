"""Statistics: rates with intervals, paired tests, and module selection."""
