"""What a sweep takes, worked out before it runs: trials, GPUs, memory, and whether the cluster has it."""
