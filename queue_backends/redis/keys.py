"""Every key and channel of a queue named `{q}`, a superset of ark's.

| key                         | type   | what                                          | lives                         |
|-----------------------------|--------|-----------------------------------------------|-------------------------------|
| `{q}`                       | stream | ready and running, normal priority (ark)      | entries go when acknowledged  |
| `{q}:high`, `{q}:low`       | stream | the same, other priorities                    | entries go when acknowledged  |
| `{q}-results`               | hash   | task id -> result JSON (ark)                  | fields go after retention     |
| `{q}:results-expiry`        | zset   | task id -> end, ms                            | as `{q}-results`              |
| `{q}-dead`                  | stream | dead letters (ark)                            | capped                        |
| `{q}:delayed`               | zset   | task id -> due, ms (retries, scheduled)       | until due                     |
| `{q}:delayed-entries`       | hash   | task id -> entry, msgpack                     | until due                     |
| `{q}:moved`                 | hash   | task id -> lane and entry id, once moved      | until the task ends           |
| `{q}:cancelled`             | zset   | running tasks that were asked to end          | until the task ends; expires  |
| `{q}:paused`                | string | exists while nothing is delivered             | until resumed                 |
| `{q}:reclaimer`             | string | who looks for expired leases: lease, consumer | expires after two seconds     |
| `{q}:cluster`               | hash   | on a cluster: partitions, kind of channels    | as long as the queue          |
| `{q}:members`               | zset   | on a cluster: worker -> end of its membership | expires                       |
| `{q}:idempotency:<key>`     | string | task id                                       | expires                       |
| `{q}:rights`                | -      | asked for, to see what the ACL allows         | within one script             |
| `{q}:submitter:<name>`      | string | a submitter's last call: number and answer    | expires after a minute        |
| `{q}:chunks:<id>`           | stream | replay of a task's chunks; also their channel | capped; expires after the end |
| `{q}:state:kv:<key>`        | string | state                                         | as its writer says            |
| `{q}:state:list:<family>`   | hash   | keys of a small family; `` -> is complete     | as its keys                   |
| `{q}:state:log:<log>`       | hash   | record id -> value                            | expires; old records are cut  |
|                             | string | of a log that is its last record: see below   | expires                       |
| `{q}:state:log-index:<log>` | zset   | record id -> appended, ms                     | as its log                    |
| `{q}:state:counters:<name>` | hash   | field -> amount                               | as its writer says            |

The journal of a task that one model call answered is nothing but one record, written when the task is over. Such a log
is a text, `<appended, ms> <length of the record's id> <id><value>`, without an index; it becomes a hash with an index
if it grows after all. Versions that know only those find it empty.

Channels: `{q}:chunks:<id>` (chunk JSON), `{q}:done:<id>` (result JSON), `{q}:control` (`cancel <id>`, `pause`,
`resume`), `{q}:state:changes` (`+` or `-`, the key's length, `:`, the key, the value; `?` instead of a long value), and
the same on `{q}:state:changes:<family>` for keys `<family>:…` and `<family>/…`. Two names come from elsewhere: the list
of a task's `stream_key`, and rolling windows, whose names are keys as they stand (ark's `swarm:budget:…`). With a
braced name, such as `{agents}`, all others share one slot of a Redis Cluster.
"""

from __future__ import annotations

import re

from queue_backends.messages import Priority

GROUP = "agent-workers"
DEFAULT_STREAM = "agent-tasks"
_FAMILY = re.compile(r"([^:/]*)[:/]")
LISTED = frozenset({"objects", "remote", "session-waiting", "settings"})
"""Families of state keys with a list of them: few keys, seldom written, which processes read whole when they start or
now and then. Names of expired keys leave a list only when it is read: what nobody reads whole has none."""
LANES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


class Keys:
    """The names of one queue's keys."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.lanes = (f"{queue}:high", queue, f"{queue}:low")
        self.results = f"{queue}-results"
        self.results_expiry = f"{queue}:results-expiry"
        self.dead = f"{queue}-dead"
        self.delayed = f"{queue}:delayed"
        self.delayed_entries = f"{queue}:delayed-entries"
        self.moved = f"{queue}:moved"
        self.cancelled = f"{queue}:cancelled"
        self.paused = f"{queue}:paused"
        self.reclaimer = f"{queue}:reclaimer"
        self.control = f"{queue}:control"
        self.changes = f"{queue}:state:changes"
        self.done_prefix = f"{queue}:done:"
        self.rights = f"{queue}:rights"
        self._submitter = f"{queue}:submitter:"
        self._chunks = f"{queue}:chunks:"
        self._idempotency = f"{queue}:idempotency:"
        self._kv = f"{queue}:state:kv:"
        self._listing = f"{queue}:state:list:"
        self._log = f"{queue}:state:log:"
        self._log_index = f"{queue}:state:log-index:"
        self._counters = f"{queue}:state:counters:"

    def chunks(self, task_id: str) -> str:
        """Replay stream and channel of a task."""
        return self._chunks + task_id

    def done(self, task_id: str) -> str:
        """Channel on which a task's result is announced."""
        return self.done_prefix + task_id

    def submitter(self, name: str) -> str:
        """Where the last call of one that submits stands."""
        return self._submitter + name

    def idempotency(self, key: str) -> str:
        """Where the task id of an idempotency key stands."""
        return self._idempotency + key

    def family_changes(self, name: str) -> str:
        """Channel of those who watch one family of state keys, such as `settings:` or `workers/`, and need not hear of
        all others; empty for a name without one."""
        family = family_of(name)
        return f"{self.changes}:{family}" if family else ""

    def listing(self, name: str) -> str:
        """Where the list of the keys of a key's family stands; empty for a family without one."""
        family = family_of(name)
        return self._listing + family if family in LISTED else ""

    def kv(self, key: str) -> str:
        """Where a state key stands."""
        return self._kv + key

    def kv_name(self, redis_key: str) -> str:
        """The state key that stands at `redis_key`."""
        return redis_key.removeprefix(self._kv)

    def log(self, name: str) -> str:
        """Where a log's records stand."""
        return self._log + name

    def log_index(self, name: str) -> str:
        """Where the order of a log's records stands."""
        return self._log_index + name

    def counters(self, name: str) -> str:
        """Where a counter set stands."""
        return self._counters + name


def family_of(name: str) -> str:
    """`settings` of `settings:budgets`, `objects` of `objects/agents/writer`; empty for a name without a family."""
    found = _FAMILY.match(name)
    return found[1] if found else ""
