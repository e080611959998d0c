"""Functions that people know from Helm, sprig and Go, and that are left out on purpose: why, and what to do instead."""

from __future__ import annotations

_CLOCK = "a resumed run has to get the same text again, so templates have no clock; give the time as an input"
_DICE = "a resumed run has to get the same text again, so templates have no randomness"
_OUTSIDE = "templates see nothing but the run's data; give the value as an input"
_CHANGES = "templates cannot change data; build a new map with dict, merge, pick or omit"
_TEMPLATES = "a text is never evaluated as a template; use {{template}} with a {{define}}"

ABSENT = {
    "now": _CLOCK,
    "date": _CLOCK,
    "ago": _CLOCK,
    "dateInZone": _CLOCK,
    "dateModify": _CLOCK,
    "toDate": _CLOCK,
    "htmlDate": _CLOCK,
    "unixEpoch": _CLOCK,
    "randAlpha": _DICE,
    "randAlphaNum": _DICE,
    "randAscii": _DICE,
    "randInt": _DICE,
    "randNumeric": _DICE,
    "shuffle": _DICE,
    "uuidv4": _DICE,
    "env": _OUTSIDE,
    "expandenv": _OUTSIDE,
    "getHostByName": _OUTSIDE,
    "lookup": _OUTSIDE,
    "set": _CHANGES,
    "unset": _CHANGES,
    "mergeOverwrite": _CHANGES,
    "include": _TEMPLATES,
    "tpl": _TEMPLATES,
}
