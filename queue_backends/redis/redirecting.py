"""What a server of a cluster answers when a key is another one's: https://redis.io/docs/latest/reference/cluster-spec/"""

from __future__ import annotations

import re
from typing import NamedTuple

import redis.exceptions

# The driver's versions read it to different degrees; in all of them the text is there, in some with words before it.
_REDIRECTION = re.compile(r"(?:^|: )(MOVED|ASK) [0-9]+ (\S*):([0-9]+)")


class Redirection(NamedTuple):
    """Where a command belongs."""

    is_moved: bool
    """For good; else this one command alone, because its key is on the way."""
    host: str
    """Empty: that of the server which said so."""
    port: int


def redirection(error: object) -> Redirection | None:
    """What an error says about another server; None if it is about anything else."""
    if isinstance(error, redis.exceptions.AskError) and hasattr(error, "host"):
        return Redirection(isinstance(error, redis.exceptions.MovedError), error.host, error.port)
    if not isinstance(error, redis.exceptions.ResponseError):
        return None
    found = _REDIRECTION.search(str(error))
    return Redirection(found[1] == "MOVED", found[2], int(found[3])) if found else None
