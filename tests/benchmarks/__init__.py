"""Shoal's speed against its peers, measured side by side: `python -m tests.benchmarks --help`."""
