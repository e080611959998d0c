"""The URL of an arq queue."""

from __future__ import annotations

import pytest

from queue_backends import BackendMisconfigured
from queue_backends.arq.queue_url import QueueUrl, taken_apart


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("arq+redis://h", QueueUrl("redis://h", "arq:queue", 0.2)),
        ("arq+redis://u:p@h:6380/2?queue=jobs&poll_ms=1000", QueueUrl("redis://u:p@h:6380/2", "jobs", 1.0)),
        ("arq+redis://h/0?stream=jobs", QueueUrl("redis://h/0", "jobs", 0.2)),
        ("arq+rediss://h?ssl_ca_certs=/ca.pem", QueueUrl("rediss://h?ssl_ca_certs=%2Fca.pem", "arq:queue", 0.2)),
        ("arq+unix:///run/r.sock?db=2&queue=jobs", QueueUrl("unix:///run/r.sock?db=2", "jobs", 0.2)),
    ],
)
def test_a_url_has_a_server_and_a_queue(url: str, parts: QueueUrl) -> None:
    """What is arq's is taken out, the rest is the driver's."""
    assert taken_apart(url) == parts


@pytest.mark.parametrize("poll_ms", ["0", "9", "60001", "-5", "1.5", "soon", "1e3", "²", "9" * 30])
def test_a_rhythm_that_is_none_is_refused(poll_ms: str) -> None:
    """The message names the option, its value and what is allowed."""
    with pytest.raises(BackendMisconfigured, match=r"poll_ms.*from 10 to 60000"):
        taken_apart(f"arq+redis://h?poll_ms={poll_ms}")
