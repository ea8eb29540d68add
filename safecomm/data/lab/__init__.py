"""The lab: small models and their data, for studies on a machine without GPUs."""
