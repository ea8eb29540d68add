"""The search: which settings are tried, what they come to, and which of them stop early."""
