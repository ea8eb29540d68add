"""Labels answers with judges and graders, and compares models."""
