"""Runs a sweep's trials on Ray Tune, tracks them and publishes the results."""
