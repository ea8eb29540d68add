"""Pure numbers: rates with their intervals, paired tests, and which modules a setting selects."""
