"""Agent plugins: agents that are code. A package with a manifest, a schema of its configuration, and a class."""
