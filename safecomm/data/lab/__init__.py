"""The lab: small models and their data, for running a whole study on a machine without GPUs."""
