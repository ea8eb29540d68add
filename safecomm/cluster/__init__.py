"""Ray: the session of a run, how a job gets to a cluster, what a node has, and what a job leaves behind."""
