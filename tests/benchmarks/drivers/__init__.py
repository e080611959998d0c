"""Drivers that run in Shoal's own environment: Shoal itself, reference loops, and the servers they talk to."""
