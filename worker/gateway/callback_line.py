"""Who is told next: tasks that have ended, in a line for each receiver, so that a slow one holds up nobody else."""

from __future__ import annotations

from collections import Counter, deque


class CallbackLine:
    """At most `most` are told at a time, and `most_of_one` by the same host; hosts take turns."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._hosts: dict[str, str] = {}
        """Of all that wait or are being told, by task."""
        self._waiting: dict[str, deque[str]] = {}
        """Task ids by host; the host whose turn it is comes first."""
        self._told: Counter[str] = Counter()

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._hosts

    def add(self, task_id: str, host: str) -> None:
        """Stand at the end of the line of a host."""
        if task_id not in self._hosts:
            self._hosts[task_id] = host
            self._waiting.setdefault(host, deque()).append(task_id)

    def take(self) -> str | None:
        """The next one, which is being told from now on; None: there is none, or no room."""
        if self._told.total() >= self._most:
            return None
        for host, line in self._waiting.items():
            if self._told[host] < self._most_of_one:
                task_id = line.popleft()
                del self._waiting[host]
                if line:
                    self._waiting[host] = line  # behind the others
                self._told[host] += 1
                return task_id
        return None

    def leave(self, task_id: str) -> None:
        """One that was taken has been told, or is not to be told."""
        host = self._hosts.pop(task_id)
        self._told[host] -= 1
        if not self._told[host]:
            del self._told[host]
