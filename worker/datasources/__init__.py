"""Data sources: texts that agents search by meaning."""
