"""`shoal approve`: lists and answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from queue_backends import open_backend
from worker.approvals import Approval, Approvals
from worker.cli.app import run


@pytest.fixture(autouse=True)
def _own_queue(queue_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_QUEUE_URL", queue_url)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def put(queue_url: str, *questions: Approval, timeout_s: float = 3600.0) -> list[str]:
    """Put questions; their ids."""

    async def work() -> list[str]:
        async with await open_backend(queue_url) as backend:
            approvals = Approvals(backend.state)
            asked = [await approvals.open(each, key=each.message, timeout_s=timeout_s) for each in questions]
            return [each.id for each in asked]

    return asyncio.run(work())


def test_what_waits_is_listed_and_answered(queue_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With its arguments and the time that is left; each can be answered once, and the next answer is told why not."""
    question = Approval(what="tool", message="May ops call wipe?", agent="ops", tool="wipe", arguments={"disk": "sda"})
    [first, second] = put(queue_url, question, Approval(what="step", message="Publish?", run="run-1", step="publish"))
    assert run(["approve"]) == 0
    shown = capsys.readouterr().out
    assert "May ops call wipe?" in shown
    assert '{"disk":"sda"}' in shown
    assert "run run-1, publish" in shown
    assert run(["approve", first, "--comment", "go on"]) == 0
    assert capsys.readouterr().out == "approved: May ops call wipe?\n"
    assert run(["approve", second, "--reject", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["id"], answer["decided"], answer.get("approved", False)) == (second, True, False)
    assert run(["approve", first]) == 4
    assert "was approved already" in capsys.readouterr().err
    assert run(["approve", "nothing"]) == 4
    assert run(["approve", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_late_answers_do_not_count(queue_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Once its time is up the fallback has decided."""
    [late] = put(queue_url, Approval(message="Too late?", fallback="approve"), timeout_s=0.0)
    assert run(["approve", late, "--reject"]) == 4
    assert "not answered in time: it counts as approved" in capsys.readouterr().err


def test_both_spellings_need_an_id_for_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """A comment without a question is a mistake."""
    assert run(["approve", "--reject"]) == 2
    assert "need an ID" in capsys.readouterr().err


def test_one_by_one_on_a_terminal(
    queue_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question is shown whole, and answered, left for later, or left with all that follow."""
    ids = put(queue_url, *(Approval(message=f"Question {number}?", arguments={"n": number}) for number in range(4)))
    said = iter(["y\n", "n\n", "l\n", "q\n"])

    class Keyboard:
        def readline(self) -> str:
            return next(said)

    monkeypatch.setattr("worker.cli.approve._is_interactive", lambda call: True)
    monkeypatch.setattr("sys.stdin", Keyboard())
    assert run(["approve"]) == 0
    shown = capsys.readouterr()
    assert '"n": 0' in shown.out
    assert "4 of 4: approve?" in shown.err

    async def found() -> list[Any]:
        async with await open_backend(queue_url) as backend:
            return [await Approvals(backend.state).get(each) for each in ids]

    answers = asyncio.run(found())
    assert [(each.decided, each.approved) for each in answers] == [
        (True, True),
        (True, False),
        (False, False),
        (False, False),
    ]


def test_what_is_shown_says_what_it_is(
    queue_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a model wrote steers the terminal, or turns around what a person reads before the answer; and who
    has no name, in a container, can answer all the same."""
    hostile = "Wipe \x1b]0;owned\x07\u202esafe\u202c?"
    [asked] = put(queue_url, Approval(message=hostile, arguments={"path": "/\u2066x\u2069", "name": "Jürgen 日本"}))

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert run(["approve"]) == 0
    listed = capsys.readouterr().out
    assert run(["approve", asked]) == 0
    said = capsys.readouterr().out
    assert said == "approved: Wipe \\x1b]0;owned\\x07\\u202esafe\\u202c?\n"
    assert "Jürgen 日本" in listed
    assert not {"\x1b", "\x07", "\u202e", "\u2066"} & {*listed, *said}
