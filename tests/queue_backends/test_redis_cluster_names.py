"""What a cluster's URL says, and how tasks are named over partitions."""

from __future__ import annotations

import pytest
import redis.exceptions
from hypothesis import given
from hypothesis import strategies as st

from queue_backends import BackendMisconfigured, BackendUnavailable, Delivery, Task
from queue_backends.redis.client import may_have_arrived, translated
from queue_backends.redis.locating import Address
from queue_backends.redis.redirecting import Redirection, redirection
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.slot_map import slot_of
from queue_backends.redis_cluster.url import at, parse


def test_a_whole_url() -> None:
    """Servers, credentials, options, queue and partitions are all understood; the rest goes to the driver."""
    url = parse(
        "rediss+cluster://worker:p%40ss@one:7000,[::1]:7001,three?stream=agents&partitions=8&wait_replicas=1"
        "&ssl_ca_certs=/etc/ca.pem"
    )
    assert url.seeds == (Address("one", 7000), Address("::1", 7001), Address("three", 6379))
    assert (url.queue, url.partitions, url.wait_replicas) == ("agents", 8, 1)
    assert url.server_url == "rediss://worker:p%40ss@one:7000?ssl_ca_certs=%2Fetc%2Fca.pem"
    assert at(url.server_url, Address("::1", 7001)).startswith("rediss://worker:p%40ss@[::1]:7001?")


@pytest.mark.parametrize(
    ("given_name", "home", "third"),
    [("agents", "{agents}", "{agents:3}"), ("{agents}", "{agents}", "{agents:3}"), ("", "{agent-tasks}", None)],
)
def test_all_names_of_a_queue_share_a_slot(given_name: str, home: str, third: str | None) -> None:
    """Braces are added where there are none, so that `agents` and `{agents}` are one queue."""
    url = parse(f"redis+cluster://host?stream={given_name}")
    assert url.home == home
    assert url.partition_queue(0, 1) == home
    assert third is None or url.partition_queue(3, 8) == third
    assert slot_of(f"{home}:chunks:1-0") == slot_of(home)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://", "names no server"),
        ("redis+cluster://host:port", "is no host:port"),
        ("redis+cluster://host/3", "database"),
        ("redis+cluster://host?partitions=0", "from 1 to 1024"),
        ("redis+cluster://host?partitions=many", "from 1 to 1024"),
        ("redis+cluster://host?wait_replicas=-1", "from 0 to 10"),
        ("redis+cluster://host?stream=a{b}c&partitions=4", "leave them out"),
        ("redis+cluster://me:secret@host/3", "me:***@host"),
    ],
)
def test_a_wrong_url_is_refused(url: str, said: str) -> None:
    """The line names what is wrong, and never a password."""
    with pytest.raises(BackendMisconfigured) as refused:
        parse(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


ENTRY_IDS = st.builds("{}-{}".format, st.integers(10**12, 10**13), st.integers(0, 10**6))
PARTITIONS = st.sampled_from([1, 2, 4, 8, 64])


@given(ENTRY_IDS | st.text(max_size=20), PARTITIONS, st.integers(0, 63))
def test_every_name_finds_its_way_back(name: str, partitions: int, number: int) -> None:
    """Whatever a partition calls a task, the name outside leads to that partition and to that name."""
    ids = Ids(partitions)
    partition = number % partitions
    public = ids.public(partition, name)
    assert ids.place(public) == (partition, name)


@given(ENTRY_IDS, PARTITIONS, st.integers(0, 63))
def test_names_that_hold_a_task_belong_to_its_partition(name: str, partitions: int, number: int) -> None:
    """A journal's log and a usage record's id lead to the partition of their task."""
    ids = Ids(partitions)
    public = ids.public(number % partitions, name)
    for text in (f"journal/{public}", f"{public}:3:1", f"outputs/{public}/call-7"):
        assert ids.named_in(text) == number % partitions


@given(st.text(max_size=20) | st.builds("{}.{}".format, ENTRY_IDS, st.integers(0, 9999)), PARTITIONS)
def test_nonsense_has_a_place_too(name: str, partitions: int) -> None:
    """Whatever somebody asks for, there is a partition to ask, always the same one."""
    ids = Ids(partitions)
    assert 0 <= ids.place(name).partition < partitions
    assert ids.place(name) == Ids(partitions).place(name)


def test_a_delivery_goes_out_and_comes_back() -> None:
    """The partition gets back exactly what it gave, and nobody else's token fits."""
    ids = Ids(8)
    inner = Delivery(task=Task(prompt="x", id="1775325495123-0"), entry_id="1775325495123-4", token="2/1/host")
    outer = ids.outside(3, inner)
    assert outer.task.id == "1775325495123-0.3"
    assert ids.partition_of(outer) == 3
    assert ids.inside(outer) == inner


def test_messages_name_tasks_as_they_are_known_outside() -> None:
    """A partition's own words are completed, once."""
    ids = Ids(8)
    assert ids.reworded(3, "chunk 2 of task 1775325495123-0 has") == "chunk 2 of task 1775325495123-0.3 has"
    assert ids.reworded(3, "task 1775325495123-0.3 has") == "task 1775325495123-0.3 has"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (redis.exceptions.MovedError("3999 127.0.0.1:6381"), Redirection(True, "127.0.0.1", 6381)),
        (redis.exceptions.AskError("3999 :6381"), Redirection(False, "", 6381)),
        (redis.exceptions.ResponseError("MOVED 3999 ::1:6381"), Redirection(True, "::1", 6381)),
        (
            redis.exceptions.ResponseError("Command # 1 (GET a) of pipeline caused error: ASK 3999 one:6381"),
            Redirection(False, "one", 6381),
        ),
        (redis.exceptions.ResponseError("ERR MOVED house"), None),
        (redis.exceptions.ConnectionError("MOVED 3999 one:6381"), None),
    ],
)
def test_redirections_are_known_whatever_the_driver_makes_of_them(error: Exception, found: Redirection | None) -> None:
    """Older versions of the driver leave them as text."""
    assert redirection(error) == found


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        redis.exceptions.ClusterDownError("The cluster is down"),
        redis.exceptions.ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"),
        redis.exceptions.ResponseError("CLUSTERDOWN Hash slot not served"),
        redis.exceptions.ResponseError("user_script:1: -CLUSTERDOWN The cluster is down"),
    ],
)
def test_what_passes_is_worth_waiting_for(error: Exception) -> None:
    """A slot on its way, or without a master: away for a while, and surely not carried out."""
    ours = translated(error)
    ours.__cause__ = error
    assert isinstance(ours, BackendUnavailable)
    assert not may_have_arrived(ours)
