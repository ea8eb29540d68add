"""Storage of finished work: a shared folder or a bucket, with atomic writes, checksums and locks."""
