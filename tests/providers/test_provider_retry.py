"""The decision whether and when to repeat a request, as values."""

from __future__ import annotations

import pytest

from providers.retry import RetryPolicy, retry_after_s

_NOW = 1_763_700_000.0  # 2025-11-21T04:40:00Z


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Fri, 21 Nov 2025 04:40:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 21 Nov 2025 04:39:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2025-11-21T04:40:12Z",
                "anthropic-ratelimit-tokens-remaining": "5000",
                "anthropic-ratelimit-tokens-reset": "2025-11-21T04:49:00Z",
            },
            12.0,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "whenever"}, None),
        ({"x-ratelimit-remaining-requests": "12", "x-ratelimit-reset-requests": "1s"}, None),
    ],
)
def test_what_the_server_asks_for(headers: dict[str, str], expected: float | None) -> None:
    """Every way in which a vendor says how long to wait is understood; limits with something left do not count."""
    wait_s = retry_after_s(headers, _NOW)
    assert wait_s == (None if expected is None else pytest.approx(expected))


def test_backoff_doubles_up_to_a_cap() -> None:
    """Without a wish of the server's, the wait is a random part of an exponentially growing one."""
    policy = RetryPolicy(max_retries=6, base_s=1.0, cap_s=5.0)
    assert [policy.wait_s(done, None, lambda: 0.5) for done in range(7)] == [0.5, 1.0, 2.0, 2.5, 2.5, 2.5, None]


def test_the_servers_wish_is_a_lower_bound() -> None:
    """Never earlier than asked for, whatever the random number."""
    policy = RetryPolicy(max_retries=1, base_s=0.5)
    assert policy.wait_s(0, 3.0, lambda: 0.0) == 3.0
    assert policy.wait_s(0, 3.0, lambda: 0.999) == pytest.approx(3.4995)


def test_a_long_wait_is_given_up() -> None:
    """A worker does not sit still for minutes: the error goes up, and the task waits in the queue."""
    assert RetryPolicy(max_retries=3, longest_wait_s=60.0).wait_s(0, 61.0, lambda: 0.0) is None
