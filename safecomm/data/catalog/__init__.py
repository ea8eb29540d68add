"""Every dataset by name: the published ones, those that the lab generates, and files of a user's own."""
