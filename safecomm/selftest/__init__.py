"""The self-test: checks that a machine, or each kind of node in a cluster, can run everything that a sweep needs."""
