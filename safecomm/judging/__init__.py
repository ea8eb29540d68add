"""From answers to verdicts: judges, graders, and models measured side by side."""
