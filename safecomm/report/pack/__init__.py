"""The evidence pack of a release: what a reviewer needs to check it, in one folder with checksums."""
