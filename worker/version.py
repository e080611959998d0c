"""Which version of Shoal this is."""

from __future__ import annotations


def version() -> str:
    """The installed distribution's version."""
    from importlib import metadata  # 20 ms that few commands need

    try:
        return metadata.version("shoal")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"
