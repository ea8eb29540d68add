"""What a sweep found: its points, the trade-off among them, the recommended one."""
