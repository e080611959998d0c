"""The settings, a file for each section of `docs/configuration.md`; `worker.settings.table` puts them together."""
