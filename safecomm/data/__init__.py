"""What models read: training examples and benchmark prompts."""
