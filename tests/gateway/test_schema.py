"""The gateway keeps to its own OpenAPI document, whatever it is sent: no operation fails, none answers otherwise than
its description says.

`SHOAL_TEST_SCHEMA_EXAMPLES=200` looks longer.
"""

from __future__ import annotations

import os
from typing import Any, cast

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode

from tests.gateway.gateway_harness import GatewayServer
from worker.gateway.app import all_operations
from worker.gateway.openapi import openapi_document

load_all_checks()

EXAMPLES = int(os.environ.get("SHOAL_TEST_SCHEMA_EXAMPLES", "1"))
CHECKS: list[Any] = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
]
DOCUMENT = openapi_document(all_operations())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS: list[Any] = [cast("Any", found).ok() for found in SCHEMA.get_all_operations()]
# The gateway's thread may use `random` at any moment, which hypothesis takes for the doing of its strategies.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
ANSWER_WITHIN_S = 10.0
STREAM_WITHIN_S = 0.3
WAITS = ("wait_s", "timeout_s")
"""Query parameters that make an answer wait, which a test has no time for."""


@pytest.fixture(scope="module")
def session(gateway_server: GatewayServer) -> requests.Session:
    """A caller that may do everything."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {gateway_server.admin_key}"
    return session


@pytest.fixture(scope="module")
def task_id(gateway_server: GatewayServer, session: requests.Session) -> str:
    """A task that has ended."""
    answer = session.post(f"{gateway_server.url}/v1/tasks?wait_s=20", json={"prompt": "hi"}, timeout=30)
    found: str = answer.json()["id"]
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "does-not-fit"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_operation_keeps_to_its_description(
    operation: Any, mode: GenerationMode, gateway_server: GatewayServer, session: requests.Session, task_id: str
) -> None:
    """With what fits the description, and with what does not."""
    is_stream = any("text/event-stream" in each.get("content", {}) for each in _responses(operation))

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case[Any]) -> None:
        for name in WAITS:
            if isinstance(case.query, dict) and name in case.query:
                case.query[name] = 0.01
        if mode is GenerationMode.POSITIVE:
            _lead_further(case, task_id)
        try:
            response = case.call(
                base_url=gateway_server.url,
                session=session,
                timeout=STREAM_WITHIN_S if is_stream else ANSWER_WITHIN_S,
                headers={"Authorization": session.headers["Authorization"]},
            )
        except requests.exceptions.InvalidHeader:
            hypothesis.reject()
        except requests.exceptions.ReadTimeout:
            assert is_stream, "no answer in time"
            return
        # What a schema of events would describe is one event, and not the text that carries it.
        case.validate_response(response, checks=CHECKS[:-1] if is_stream else CHECKS)

    if not _can_be_wrong(operation) and mode is GenerationMode.NEGATIVE:
        pytest.skip("there is nothing that could be wrong")
    run()


def _lead_further(case: schemathesis.Case[Any], task_id: str) -> None:
    """Names that exist, or could: past the first thing that every operation looks at."""
    if case.operation.path.startswith("/v1/tasks/{id}"):
        case.path_parameters["id"] = task_id
    if "slug" in case.path_parameters:
        case.path_parameters["slug"] = "thing"
    if isinstance(case.body, dict) and isinstance(case.body.get("slug"), str):
        case.body["slug"] = "thing"


def _responses(operation: Any) -> list[dict[str, Any]]:
    return list(DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"].values())


def _can_be_wrong(operation: Any) -> bool:
    described = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return "requestBody" in described or any(each["in"] == "query" for each in described.get("parameters", ()))
