"""Every key of a queue named `{q}` (default `arq:queue`): arq's own, whose meaning is arq's, and ours beside them.

arq's keys, which every queue of a database shares but for the first and the last:

| key                    | type   | what                                                | lives                      |
|------------------------|--------|-----------------------------------------------------|----------------------------|
| `{q}`                  | zset   | job id -> when it may be taken, ms                  | until the job ends         |
| `arq:job:<id>`         | string | the job, JSON                                       | as its engine says         |
| `arq:in-progress:<id>` | string | a lease: our fencing token, or arq's own mark       | `lease_s`, renewed         |
| `arq:retry:<id>`       | string | tries so far                                        | a day, or until the end    |
| `arq:result:<id>`      | string | the result, JSON                                    | expires after retention    |
| `arq:abort`            | zset   | ids of jobs that somebody asked to abort            | until the job ends         |
| `{q}:health-check`     | string | a line of figures                                   | some seconds, renewed      |

While one of our workers runs a job, the job's score is the end of its lease, so that nobody who looks for work has to
pass over it. Ours:

| key                     | type   | what                                                  | lives                     |
|-------------------------|--------|-------------------------------------------------------|---------------------------|
| `{q}:high`, `{q}:low`   | zset   | as `{q}`: queues of arq's, pulled before and after it | until the job ends        |
| `{q}:running`           | zset   | task id -> end of its lease, ms                       | until given back or ended |
| `{q}:front`             | zset   | ids of tasks that were handed back                    | until they are claimed    |
| `{q}:run:<id>`          | hash   | what is known of a task that was claimed before       | until the end; expires    |
| `{q}:results-expiry`    | zset   | task id -> ended, ms                                  | as the results            |
| `{q}-dead`              | stream | dead letters                                          | capped                    |
| `{q}:wake`              | list   | one item for each pull that shall look again          | capped, expires           |
| `{q}:ids`               | string | a counter for new ids                                 | stays                     |
| `{q}:puller:<consumer>` | string | what a worker's last pull claimed, msgpack            | expires                   |

`{q}:run:<id>` has: token, lane, claims, crashes (deliveries without an answer), had (1: not the first delivery),
score (where it stood in its queue), started (ms), next_attempt, spent (JSON). Chunks, state, `{q}:paused`, idempotency
keys and the submitters' memory are as queue_backends/redis/keys.py has them, and so are the channels.
"""

from __future__ import annotations

import msgspec
from arq import constants

from queue_backends.interfaces import BackendOptions
from queue_backends.redis.keys import Keys
from queue_backends.redis.wire import keep_of

DEFAULT_QUEUE = str(constants.default_queue_name)
RETRY_KEPT_S = 88_400
"""arq's own lifetime of a job's count of tries."""


class ArqKeys(Keys):
    """The names of one queue's keys, arq's among them."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.running = f"{queue}:running"
        self.front = f"{queue}:front"
        self.wake = f"{queue}:wake"
        self.ids = f"{queue}:ids"
        self.health = queue + str(constants.health_check_key_suffix)
        self.abort = str(constants.abort_jobs_ss)
        self._runs = f"{queue}:run:"

    def run(self, task_id: str) -> str:
        """What is known of a task that was claimed before."""
        return self._runs + task_id

    def job(self, task_id: str) -> str:
        """arq's job."""
        return str(constants.job_key_prefix) + task_id

    def progress(self, task_id: str) -> str:
        """arq's mark of a job in progress."""
        return str(constants.in_progress_key_prefix) + task_id

    def retry(self, task_id: str) -> str:
        """arq's count of tries."""
        return str(constants.retry_key_prefix) + task_id

    def result(self, task_id: str) -> str:
        """arq's result."""
        return str(constants.result_key_prefix) + task_id

    def puller(self, consumer: str) -> str:
        """What a worker's last pull claimed."""
        return f"{self.queue}:puller:{consumer}"


def packed_names(keys: ArqKeys, options: BackendOptions) -> msgspec.Raw:
    """What the scripts know of a queue, packed once."""
    return msgspec.Raw(
        msgspec.msgpack.encode(
            {
                "lanes": keys.lanes,
                "running": keys.running,
                "front": keys.front,
                "runs": keys.run(""),
                "job": keys.job(""),
                "progress": keys.progress(""),
                "retry": keys.retry(""),
                "result": keys.result(""),
                "abort": keys.abort,
                "ended": keys.results_expiry,
                "dead": keys.dead,
                "wake": keys.wake,
                "paused": keys.paused,
                "control": keys.control,
                "done": keys.done_prefix,
                "chunks": keys.chunks(""),
                "ids": keys.ids,
                "pullers": keys.puller(""),
                "keep": keep_of(options),
                "lease_ms": round(options.lease_s * 1000),
                "result_ms": max(1, round(options.result_retention_s * 1000)),
                "dead_limit": options.dead_limit,
                "retry_s": RETRY_KEPT_S,
            }
        )
    )
