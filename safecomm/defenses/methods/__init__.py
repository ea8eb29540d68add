"""The defenses, one file each: a settings class with limits and defaults, and the function that applies it."""
