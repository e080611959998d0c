"""Objects that people declare and change while the fleet runs: agents, apps, models, data sources, keys.

Stored once, versioned, and mirrored in every process that uses them.
"""

from worker.objects.errors import BadObject, ObjectConflict, ObjectError, ObjectExists, ObjectInUse, ObjectNotFound
from worker.objects.slug import slugified
from worker.objects.store import Declared, ObjectStore, Stored

__all__ = [
    "BadObject",
    "Declared",
    "ObjectConflict",
    "ObjectError",
    "ObjectExists",
    "ObjectInUse",
    "ObjectNotFound",
    "ObjectStore",
    "Stored",
    "slugified",
]
