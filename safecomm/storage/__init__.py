"""Where finished work is kept: a folder or a bucket, written whole, checked, and shared by the nodes of a cluster."""
