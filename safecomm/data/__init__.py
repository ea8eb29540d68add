"""Datasets: training examples and benchmark prompts."""
