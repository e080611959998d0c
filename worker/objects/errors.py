"""What can go wrong with declared objects.

ObjectError
├── BadObject        a field does not fit: fix it; the message names it, its value and what is allowed
├── ObjectExists     there is one of that kind and slug: update it, or choose another slug
├── ObjectNotFound   there is none: the message says what was looked for
├── ObjectInUse      others refer to it: the message names them
└── ObjectConflict   somebody else has changed it meanwhile: read it again, then change it
"""

from __future__ import annotations

from worker.errors import WorkerError


class ObjectError(WorkerError):
    """Root of what goes wrong with declared objects."""


class BadObject(ObjectError):
    """A field of an object does not fit."""


class ObjectExists(ObjectError):
    """There is an object of that kind and slug already."""


class ObjectNotFound(ObjectError):
    """There is no such object."""


class ObjectInUse(ObjectError):
    """Other objects refer to it, so it cannot be deleted."""


class ObjectConflict(ObjectError):
    """The object is at another version than the caller has seen."""
