"""Every backend behaves as the model of a queue does, whatever its users do in whatever order.

In CI a fixed set of examples runs, the same each time. To explore with random ones, and for as long as you like:
`SHOAL_TEST_MODEL_EXAMPLES=3000 pytest --timeout 0 tests/queue_backends/test_queue_model.py -k valkey`.
A failure prints its shortest history.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test

from tests.queue_backends.model.machine import QueueMachine
from tests.queue_backends.model.sites.kinds import KINDS, NewSite, NotHere

SETTINGS = settings(
    stateful_step_count=40,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, NewSite]]:
    """A kind of backend, and how a fresh queue of it comes to be."""
    name: str = request.param
    with contextlib.ExitStack() as stack:
        try:
            new_site = stack.enter_context(KINDS[name].running())
        except NotHere as error:
            pytest.skip(str(error))
        yield name, new_site


def test_a_backend_behaves_as_the_model(kind: tuple[str, NewSite]) -> None:
    """Whatever is done in whatever order: the backend shows what the model shows, and nothing is lost or doubled."""
    name, new_site = kind
    explored = int(os.environ.get("SHOAL_TEST_MODEL_EXAMPLES", "0"))
    examples = explored or KINDS[name].examples
    if KINDS[name].is_repeatable:
        _try(new_site, settings(SETTINGS, max_examples=examples, derandomize=not explored))
        return
    first = random.randrange(2**32) if explored else 0
    for number in range(first, first + examples):
        # What such an engine does first of two things is not said by the seed, and so is what there is to choose from.
        with contextlib.suppress(FlakyStrategyDefinition):
            _try(new_site, settings(SETTINGS, max_examples=2, phases=[Phase.generate]), chosen=number)


def _try(new_site: NewSite, how: settings, *, chosen: int | None = None) -> None:
    def machine() -> QueueMachine:
        return QueueMachine(new_site())

    if chosen is not None:
        seed(chosen)(machine)
    run_state_machine_as_test(cast("type[QueueMachine]", machine), settings=how)  # all it does with it is call it
