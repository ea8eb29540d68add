"""Finds the defense settings that make a fine-tuned LLM safe again."""
