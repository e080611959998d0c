"""The examples of docs/compatible-apis.md, run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.vendor_clients import SCHEMA_ANSWER, call, scripted, turns
from worker.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "compatible-apis.md").read_text()
AGENTS = {
    "support": scripted(turns({"text": "Your order is on its way."})),
    "planner": scripted(
        turns(
            {"text": "Let me look.", "tool_calls": [call("get_weather", city="Paris")]},
            {"text": "No umbrella: {last_result}."},
        )
    ),
    "geographer": scripted(turns({"text": SCHEMA_ANSWER})),
}
EXAMPLES = [
    (language, text)
    for language, text in re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    if "fleet.submit" not in text  # a fragment
]
SAYS = [
    "Your order is on its way.",
    "event: message_stop",
    "planner\nsupport\n",
    "No umbrella: Sun in Paris.",
    "Your order is on its way.",
    "Paris",
    "No umbrella: Sun.",
    "2 1536",
]
"""What each example writes, among other things, in the order of the page."""


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """A gateway with the page's agents."""
    return gateway_settings(agents=AGENTS)


def test_every_example_is_run() -> None:
    """None was added without saying what it writes."""
    assert len(EXAMPLES) == len(SAYS)


@pytest.mark.parametrize("number", range(len(SAYS)))
def test_example(
    gateway_server: GatewayServer, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An example of the page works, and writes what it should."""
    language, text = EXAMPLES[number]
    environ = {
        "OPENAI_BASE_URL": f"{gateway_server.url}/v1",
        "OPENAI_API_KEY": gateway_server.admin_key,
        "ANTHROPIC_BASE_URL": gateway_server.url,
        "ANTHROPIC_API_KEY": gateway_server.admin_key,
    }
    if language == "python":
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        exec(compile(text, "docs/compatible-apis.md", "exec"), {"__name__": "example"})
        said = capsys.readouterr().out
    elif shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    else:
        command = ["/bin/sh", "-c", text]
        path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        done = subprocess.run(
            command, env={**environ, **path}, capture_output=True, text=True, timeout=WITHIN_S, check=True
        )
        said = done.stdout
    assert SAYS[number] in said
