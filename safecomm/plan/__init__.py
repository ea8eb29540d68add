"""Plans a sweep before it runs: its trials, GPUs and memory, and whether the cluster has them."""
