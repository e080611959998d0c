"""Who is told next: deliveries stand in a line for each receiver, so that a slow one holds up nobody else."""

from __future__ import annotations

from collections import Counter, deque


class HostLine:
    """At most `most` are told at a time, and `most_of_one` by the same host; hosts take turns."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._hosts: dict[str, str] = {}
        """Of all that wait or are being told, by key."""
        self._waiting: dict[str, deque[str]] = {}
        """Keys by host; the host whose turn it is comes first."""
        self._told: Counter[str] = Counter()

    def __contains__(self, key: str) -> bool:
        return key in self._hosts

    def add(self, key: str, host: str) -> None:
        """Stand at the end of the line of a host."""
        if key not in self._hosts:
            self._hosts[key] = host
            self._waiting.setdefault(host, deque()).append(key)

    def take(self) -> str | None:
        """The next one, which is being told from now on; None: there is none, or no room."""
        if self._told.total() >= self._most:
            return None
        for host, line in self._waiting.items():
            if self._told[host] < self._most_of_one:
                key = line.popleft()
                del self._waiting[host]
                if line:
                    self._waiting[host] = line  # behind the others
                self._told[host] += 1
                return key
        return None

    def leave(self, key: str) -> None:
        """One that was taken has been told, or is not to be told."""
        host = self._hosts.pop(key)
        self._told[host] -= 1
        if not self._told[host]:
            del self._told[host]
