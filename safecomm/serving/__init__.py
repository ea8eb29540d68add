"""Inference: shared engines that serve all adapters, and the cache of their responses."""
