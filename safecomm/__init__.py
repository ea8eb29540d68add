"""Restores the safety of fine-tuned LLMs and finds the best settings for doing so."""
