"""The Ray cluster that a sweep runs on: how a job gets there, what the cluster has, and what a job leaves behind."""
