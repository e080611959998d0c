"""The functions that templates can call: importing the modules registers them."""

from worker.teams.templates.functions import collections, encoding, language, numbers, regexes, strings
from worker.teams.templates.functions.registry import FUNCTIONS, Function, near_matches

__all__ = [
    "FUNCTIONS",
    "Function",
    "collections",
    "encoding",
    "language",
    "near_matches",
    "numbers",
    "regexes",
    "strings",
]
