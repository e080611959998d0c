"""The log is machine-readable where a machine reads it, and never shows a secret."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from worker.log import MASK, configure_logging, mask_text

KEY = "sk-ant-REDACTED"


@pytest.fixture
def stream() -> io.StringIO:
    """Where the log goes."""
    return io.StringIO()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_in_arks_order(stream: io.StringIO) -> None:
    """Time in UTC, level and message come first, then what the caller added."""
    configure_logging("info", stream=stream)
    structlog.get_logger().info("task completed", task="1-0", turns=3)
    (line,) = _lines(stream)
    assert list(line) == ["time", "level", "msg", "task", "turns"]
    assert (line["level"], line["msg"], line["turns"]) == ("info", "task completed", 3)
    assert str(line["time"]).endswith("Z")


def test_the_level_is_kept_by_both_kinds_of_loggers(stream: io.StringIO) -> None:
    """What is below the level is not written; libraries speak from warnings on."""
    configure_logging("warning", stream=stream)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("lib").info("quiet")
    logging.getLogger("lib").warning("loud %s", "too")
    assert [line["msg"] for line in _lines(stream)] == ["loud", "loud too"]


def test_an_unknown_level_is_refused() -> None:
    """The error names the value and what is allowed."""
    with pytest.raises(ValueError, match=r"'verbose'.*debug, info, warning"):
        configure_logging("verbose")


def test_configuring_twice_writes_each_line_once(stream: io.StringIO) -> None:
    """A second set-up replaces the first."""
    configure_logging(stream=stream)
    configure_logging(stream=stream)
    logging.getLogger("lib").warning("once")
    structlog.get_logger().warning("once")
    assert len(_lines(stream)) == 2


@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "apiKey", "X-Api-Key", "token", "auth_token", "client_secret", "PASSWORD", "authorization"],
)
def test_values_under_secret_names_are_masked(stream: io.StringIO, name: str) -> None:
    """A field named like a secret never shows its value, at the top or inside."""
    configure_logging(stream=stream)
    structlog.get_logger().info("start", **{name: "plain", "headers": {name: ["plain"]}})
    assert "plain" not in stream.getvalue()
    (line,) = _lines(stream)
    assert line[name] == MASK
    assert line["headers"] == {name: [MASK]}


def test_counts_and_names_that_only_sound_secret_are_shown(stream: io.StringIO) -> None:
    """Token counts and idempotency keys are what an operator looks for."""
    configure_logging(stream=stream)
    shown = {"input_tokens": 12, "token_type": "input", "idempotency_key": "order-7", "key_id": "k1", "token": 5}
    structlog.get_logger().info("x", **shown)
    (line,) = _lines(stream)
    assert {name: line[name] for name in shown} == shown


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"call with {KEY} failed", f"call with {MASK} failed"),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {MASK}"),
        ("redis://:hunter2@host:6379/0", f"redis://{MASK}@host:6379/0"),
        ("https://u:p%40ss@host/x?key=abc&y=1", f"https://{MASK}@host/x?key={MASK}&y=1"),
        ("refused: token=abc123, retry=2", f"refused: token={MASK}, retry=2"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstu", MASK),
        ("jwt eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.sig_nature", f"jwt {MASK}"),
        ("task-12345678 of risk-assessment took 3 tokens", "task-12345678 of risk-assessment took 3 tokens"),
        ("http://host:8080/path@2", "http://host:8080/path@2"),
    ],
)
def test_secrets_inside_text_are_masked(text: str, masked: str) -> None:
    """Known forms of keys are found anywhere in a text; ordinary words are left alone."""
    assert mask_text(text) == masked


@pytest.mark.parametrize("pretty", [False, True])
def test_an_exception_is_logged_without_its_secret(stream: io.StringIO, pretty: bool) -> None:
    """Tracebacks are masked too, in both forms and from both kinds of loggers."""
    configure_logging(stream=stream, pretty=pretty)
    try:
        raise RuntimeError(f"401 for {KEY}")
    except RuntimeError:
        structlog.get_logger().exception("call failed", url="https://user:hunter2@host/")
        logging.getLogger("lib").exception("call failed: %s", KEY)
    text = stream.getvalue()
    assert KEY not in text
    assert "hunter2" not in text
    assert text.count("RuntimeError: 401 for [masked]") == 2
    assert text.count("Traceback") == 2


def test_a_terminal_gets_lines_for_people(stream: io.StringIO) -> None:
    """Pretty output is not JSON, but holds the same message and values."""
    configure_logging(stream=stream, pretty=True)
    structlog.get_logger().info("task completed", task="1-0", api_key="plain")
    assert "task completed" in stream.getvalue()
    assert "1-0" in stream.getvalue()
    assert "plain" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_bound_context_is_part_of_every_line(stream: io.StringIO) -> None:
    """What is bound for a task appears on each of its lines."""
    configure_logging(stream=stream)
    with structlog.contextvars.bound_contextvars(task="1-0"):
        structlog.get_logger().info("inside")
    assert _lines(stream)[0]["task"] == "1-0"
