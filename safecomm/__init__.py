"""Finds the defense settings that make a telecom-tuned LLM safe again."""
