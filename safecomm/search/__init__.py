"""The search: which settings are tried, in which order, and the records of the trials."""
