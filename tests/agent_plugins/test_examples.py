"""The examples do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queue_backends import ChunkType
from tests.agent_plugins.asking import answered, text_of
from worker.agent_plugins.trial import plugin_trial
from worker.agent_plugins.validation import validate
from worker.agents.model import Agent, App, Llm
from worker.assembly import open_worker
from worker.client import Fleet
from worker.datasources.documents import Document
from worker.datasources.model import Datasource
from worker.definitions import Definitions
from worker.settings import load_settings

EXAMPLES = Path(__file__).parents[2] / "examples" / "agent_plugins"


@pytest.mark.parametrize("name", ["echo", "rag", "research"])
def test_the_examples_are_valid(name: str) -> None:
    """Nothing is to say about any of them."""
    package, remarks = validate(EXAMPLES / name)
    assert package is not None
    assert remarks == []


async def test_echo_without_a_model() -> None:
    """Without a model the message itself comes back between the marks."""
    async with plugin_trial(EXAMPLES / "echo", has_llm=False) as bot:
        assert (await bot.ask("hello")).said() == ["<< hello >>"]


async def test_echo_with_a_model() -> None:
    """With one, its answer does; the metadata are a piece of their own at the end."""
    script = {"responses": {"hello": "hi"}}
    config = {"prefix": "(", "suffix": ")", "include_metadata": True}
    async with plugin_trial(EXAMPLES / "echo", script=script, config=config) as bot:
        output = (await bot.ask("hello")).output
    said, _, metadata = output.partition("\n\n---\nMetadata: ")
    assert said == "( hi )"
    assert '"llm": "trial-model"' in metadata


async def test_echo_with_a_model_that_fails() -> None:
    """The task fails with AI Studio's text."""
    fault = {"kind": "invalid_request", "message": "no"}
    async with plugin_trial(EXAMPLES / "echo", script={"scenarios": [{"turns": [{"fault": fault}]}]}) as bot:
        assert (await bot.ask("hello")).error == "Failed to call LLM: no"


RESEARCH: dict[str, Any] = {
    "scenarios": [
        {"match": "Findings:", "turns": [{"text": "Rome is older."}]},
        {"match": "Which is older", "turns": [{"text": '{"questions": ["Age of Rome?", "Age of Paris?"]}'}]},
        {
            "match": "Age of",
            "turns": [
                {"tool_calls": [{"name": "age", "arguments": {"of": "it"}}]},
                {"text": "{prompt} {last_result}"},
            ],
        },
    ]
}
TOOLS = """
from worker import tool

@tool
async def age(of: str) -> str:
    '''How old something is.'''
    return "very old"
"""


async def test_research_plans_looks_and_reports(tmp_path: Path) -> None:
    """Given a question, then the plan is thinking, each part a tool call with its result, and the report the content
    and the output."""
    (tools := tmp_path / "tools.py").write_text(TOOLS)
    async with plugin_trial(EXAMPLES / "research", script=RESEARCH, tools=[str(tools)]) as bot:
        answer = await bot.ask("Which is older, Rome or Paris?")
    assert answer.error == ""
    assert "".join(answer.said("THINKING")) == "Plan:\n1. Age of Rome?\n2. Age of Paris?\n"
    assert answer.said("TOOL_CALL") == ["research", "research"]
    assert sorted(answer.said("TOOL_RESULT")) == ["Age of Paris? very old", "Age of Rome? very old"]
    assert answer.output == "".join(answer.said()) == "Rome is older."


async def test_research_whose_parts_all_fail() -> None:
    """Given tools and models that fail in every part, then the task fails and says so."""
    plan = RESEARCH["scenarios"][1]
    fault = {"kind": "invalid_request", "message": "no"}
    script = {"scenarios": [plan, {"turns": [{"fault": fault}]}]}
    async with plugin_trial(EXAMPLES / "research", script=script) as bot:
        answer = await bot.ask("Which is older, Rome or Paris?")
    assert answer.error.startswith("none of the questions could be answered")
    assert answer.said("TOOL_RESULT") == ["failed: no", "failed: no"]


async def test_rag_answers_from_passages_and_cites_them() -> None:
    """Given a data source with two documents, then the model is shown the passages that fit, and the answer names the
    one that it cites; a question that nothing fits gets the configured answer."""
    from queue_backends import open_backend
    from worker.datasources.datasources import Datasources
    from worker.datasources.embeddings import Embeddings
    from worker.providers_in_use import ProvidersInUse
    from worker.usage import UsageLedger

    script = {"scenarios": [{"match": "Question:", "turns": [{"text": "Fifteen percent [1]. {prompt}"}]}]}
    overrides = {
        "agent.model": "scripted",
        "agent.provider": "scripted",
        "agent_plugins_dir": str(EXAMPLES),
    }
    settings = load_settings({}, file=None, overrides=overrides)
    llm = Llm(slug="main", provider="scripted", model="scripted", options={"script": script})
    documents = [
        Document(id="fees.md", title="Fees", text="The fee for late payment is fifteen percent of the amount."),
        Document(id="pets.md", title="Pets", text="Dogs and cats are welcome in the garden."),
    ]
    async with await open_backend("memory://") as backend:
        async with Definitions(backend.state) as declared:
            await declared.datasources.create(Datasource(slug="handbook", embed_model="lexical"))
            await declared.llms.create(llm)
            await declared.apps.create(App(slug="desk", llms=("main",), datasources=("handbook",)))
            config = {"threshold": 0.2, "max_passages": 1}
            await declared.agents.create(Agent(slug="bot", plugin="com.shoal.rag-agent", app="desk", config=config))
            embeddings = Embeddings(ProvidersInUse(), backend.state, UsageLedger(keep_s=60))
            sources = Datasources(declared, backend.state, embeddings)
            await sources.ingest("handbook", documents)
            await sources.aclose()
        async with open_worker(settings, backend):
            result, chunks = await answered(Fleet(backend), "What is the fee for late payment?")
            nothing, _ = await answered(Fleet(backend), "zebra quasar")
    assert "[1] The fee for late payment is fifteen percent" in result.output
    assert result.output.startswith("Fifteen percent [1].")
    assert result.output.endswith("\n\nSources:\n[1] Fees")
    assert text_of(chunks, ChunkType.TOOL_CALL) == "search_handbook"
    assert text_of(chunks, ChunkType.TOOL_RESULT) == "1 passages: Fees"
    assert nothing.output == "I have found nothing about that in the documents."
