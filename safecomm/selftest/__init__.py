"""The self-test: whether a machine, or each kind of node of a cluster, can do all that a sweep needs."""
