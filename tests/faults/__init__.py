"""Faults by a seeded schedule against real processes, and an independent check of what is left."""
