"""The three parts together: a queue on a cluster, in one slot or spread over several."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import MappingProxyType

from msgspec import structs

from queue_backends.capabilities import Capability
from queue_backends.interfaces import Backend, BackendOptions, P
from queue_backends.redis.pulling import consumer_name
from queue_backends.redis_cluster.agreement import agree
from queue_backends.redis_cluster.ark_lists import ArkLists
from queue_backends.redis_cluster.chunks import ShardedChunks
from queue_backends.redis_cluster.client import ClusterClient, ReplicatedClusterClient
from queue_backends.redis_cluster.commit import ShardedCommitter
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.master_watch import MasterWatch
from queue_backends.redis_cluster.membership import Membership
from queue_backends.redis_cluster.partition import Partition
from queue_backends.redis_cluster.pulling import PartitionPuller
from queue_backends.redis_cluster.queue import ShardedQueue
from queue_backends.redis_cluster.renewing import ShardedRenewer
from queue_backends.redis_cluster.slot_clients import SlotClients
from queue_backends.redis_cluster.slot_map import SlotLocator, SlotMap, slot_of
from queue_backends.redis_cluster.state import ShardedState
from queue_backends.redis_cluster.url import ClusterUrl, parse

GAPS_OF_PARTITIONS: Mapping[Capability, str] = MappingProxyType(
    {
        Capability.ORDER: "tasks keep their order within a partition only, and are spread over several",
        Capability.PRIORITIES: "urgent tasks come before others of their own partition, not before those of another",
    }
)


class ClusterBackend(Backend):
    """One queue, of as many partitions as it has. Each partition keeps the promises of a single server by itself."""

    queue: ShardedQueue

    def __init__(
        self,
        partitions: Sequence[Partition],
        home: ClusterClient,
        url: ClusterUrl,
        options: BackendOptions,
        slots: SlotMap,
        consumer: str,
    ) -> None:
        ids = Ids(len(partitions))
        clients = SlotClients(url.server_url, slots)
        state = ShardedState(partitions, ids, clients)
        lists = ArkLists(clients, options)
        membership = Membership(home, f"{url.home}:members", consumer, len(partitions), lambda: puller.wake())
        puller = PartitionPuller(partitions, ids, membership)
        queue = ShardedQueue(partitions, ids, membership, puller, options, url.queue)
        super().__init__(queue, ShardedChunks(partitions, ids, lists), state, url=url.text)
        self._ids = ids
        self._slots = slots
        self._partitions = partitions
        self._home = home
        self._clients = clients
        self._watch = MasterWatch(slots, partitions)
        self._committer = ShardedCommitter(partitions, ids, state, lists)
        if len(partitions) > 1:
            self.gaps = GAPS_OF_PARTITIONS

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """One script call per partition, all at once."""
        return await self._committer.commit(outcomes)

    def lease_renewer(self) -> ShardedRenewer:
        """Over connections that belong to no particular loop yet."""
        slots = self._slots.twin()
        return ShardedRenewer({each.number: each.renewer(slots) for each in self._partitions}, self._ids)

    async def start(self) -> None:
        """Check every partition's server, and create what must be there."""
        async with asyncio.TaskGroup() as starting:
            for partition in self._partitions:
                starting.create_task(partition.start(), name="start of a partition")
        for partition in self._partitions:
            self.gaps = MappingProxyType({**self.gaps, **partition.gaps})
        self._watch.start()

    async def close(self) -> None:
        """Say goodbye to the other workers and to the groups, then close the connections."""
        async with AsyncExitStack() as stack:
            for client in (self._home, self._clients):
                stack.push_async_callback(client.close)
            stack.push_async_callback(self._close_partitions)
            stack.push_async_callback(self.queue.close)
            stack.push_async_callback(self._watch.close)

    async def _close_partitions(self) -> None:
        async with asyncio.TaskGroup() as closing:
            for partition in self._partitions:
                closing.create_task(partition.close(), name="end of a partition")


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the cluster of `url`. Raises `BackendUnavailable` or `BackendMisconfigured`."""
    parsed = parse(url)
    slots = SlotMap(parsed.server_url, parsed.seeds)
    home = _client(parsed, parsed.home, slots, options)
    try:
        await home.check()
        agreement = await agree(home, parsed)
    except BaseException:
        await home.close()
        raise
    home.sharded = agreement.sharded
    consumer = consumer_name(options.consumer)
    count = agreement.partitions
    own_options = structs.replace(options, max_depth=0, dead_limit=-(-options.dead_limit // count))
    partitions = []
    for number in range(count):
        client = _client(parsed, parsed.partition_queue(number, count), slots, options)
        client.sharded = agreement.sharded
        partitions.append(Partition(number, client, own_options, consumer))
    backend = ClusterBackend(partitions, home, parsed, options, slots, consumer)
    try:
        await backend.start()
    except BaseException as error:
        await backend.close()
        if isinstance(error, ExceptionGroup):
            raise error.exceptions[0] from error
        raise
    return backend


def _client(url: ClusterUrl, stream: str, slots: SlotMap, options: BackendOptions) -> ClusterClient:
    locator = SlotLocator(slots, slot_of(stream))
    if not url.wait_replicas:
        return ClusterClient(url.server_url, stream, locator, lease_s=options.lease_s)
    return ReplicatedClusterClient(url.server_url, stream, locator, replicas=url.wait_replicas, lease_s=options.lease_s)
