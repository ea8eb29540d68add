"""The defenses, one file each: the settings with their limits and defaults, and the function that applies them."""
