"""Usage records in a Redis stream: one entry each, its fields are the record's columns. The cursor is in
`<stream>:cursor`, and moves in the script that adds the entries."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlencode, urlsplit

import redis.asyncio as driver
from redis.exceptions import RedisError, ResponseError

from queue_backends import UsageRecord
from queue_backends.messages import encode_json
from worker.errors import BadSetting, WorkerError
from worker.ledger.sinks.sink import SinkUnavailable
from worker.settings.masking import masked_url

DEFAULT_STREAM = "shoal-usage"
_TIMEOUT_S = 10.0
_OF_CLUSTERS = ("MOVED", "ASK", "CROSSSLOT", "Script attempted to access", "Keys in request don't hash")
_SCRIPT = """
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then
  return 0
end
for index = 4, #ARGV, 2 do
  if ARGV[3] == '0' then
    redis.call('XADD', KEYS[1], '*', 'id', ARGV[index], 'record', ARGV[index + 1])
  else
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[index], 'record', ARGV[index + 1])
  end
end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""


class RedisSink:
    """A stream on any Redis, the queue's own or another. With `maxlen`, about so many entries are kept."""

    def __init__(self, client: driver.Redis, stream: str, maxlen: int, shown: str) -> None:
        self._client = client
        self._keys = [stream, f"{stream}:cursor"]
        self._maxlen = maxlen
        self._shown = shown
        self._script = client.register_script(_SCRIPT)

    async def cursor(self) -> str:
        """What the last script noted."""
        try:
            found = await self._client.get(self._keys[1])
        except (RedisError, OSError) as error:
            raise self._failed(error) from error
        return found.decode() if isinstance(found, bytes) else found or ""

    async def write(self, records: Sequence[UsageRecord], *, before: str, after: str) -> bool:
        """One script: all entries and the cursor."""
        arguments: list[str | bytes | int] = [before, after, self._maxlen]
        for record in records:
            arguments += [record.id, encode_json(record)]
        try:
            return bool(await self._script(keys=self._keys, args=arguments))
        except (RedisError, OSError) as error:
            raise self._failed(error) from error

    async def close(self) -> None:
        """Give up the connection."""
        await self._client.aclose()

    def _failed(self, error: Exception) -> WorkerError:
        if isinstance(error, ResponseError) and str(error).startswith(_OF_CLUSTERS):
            return BadSetting(f"{self._shown} is a node of a cluster: a stream has to be on a server of its own")
        if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
            return BadSetting(f"{self._shown}: {self._keys[0]} is not a stream of usage: choose another ?stream=")
        return SinkUnavailable(f"{self._shown}: {error}")


async def open_sink(url: str) -> RedisSink:
    """The sink at `redis://host:port/db?stream=usage&maxlen=1000000`; other options are the driver's.

    Raises `BadSetting`, `SinkUnavailable`.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    stream = options.pop("stream", DEFAULT_STREAM)
    maxlen = options.pop("maxlen", "0")
    if not maxlen.isdecimal():
        raise BadSetting(f"maxlen={maxlen} in {masked_url(url)}: use a whole number; 0 keeps everything")
    address = parts._replace(query=urlencode(options)).geturl()
    try:
        client = driver.Redis.from_url(address, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
    except (ValueError, TypeError):  # its text may repeat a part of the password
        raise BadSetting(f"{masked_url(url)}: the Redis client cannot read this address") from None
    sink = RedisSink(client, stream, int(maxlen), masked_url(url))
    try:
        await sink.cursor()
    except BaseException:
        await sink.close()
        raise
    return sink
