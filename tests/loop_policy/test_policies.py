"""Where policies come from: the environment, the file, declared agents, teams' files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from providers import AgentConfig
from queue_backends import Task, open_backend
from tests.loop_policy.harness import Ground, call, done
from tests.teams.kinds.files import bundle, document, places
from worker.agents import AgentDirectory, Roster
from worker.assembly import open_worker
from worker.client import Fleet
from worker.errors import BadSetting
from worker.loop_policy import Advisor, Compression, LoopMemory, LoopPolicy, SandboxPolicy
from worker.loop_policy.model import in_force
from worker.loop_policy.reading import parse_loop_policy
from worker.loop_policy.repeats import SKIPPED
from worker.settings import load_settings

FROM_ARK = """
{"dedup":true,
 "compression":{"threshold":0.75,"preserveRecentTurns":4,"contextWindow":0,"model":"","timeoutSeconds":30,
                "instructions":""},
 "memory":{"store":true,"retrieve":true,"topK":3,"minSimilarity":0.7,"summaryTokens":0,"maxTokens":1024,
           "embeddingModel":"","embeddingProvider":""}}
"""


def test_arks_own_form_is_read() -> None:
    """All of it, as an operator writes it."""
    policy = parse_loop_policy(FROM_ARK)
    assert policy is not None
    assert policy.is_on
    assert policy.compression is not None
    assert (policy.compression.share, policy.compression.limit_s) == (0.75, 30.0)
    assert policy.memory is not None
    assert (policy.memory.most_found, policy.memory.similarity, policy.memory.most_chars) == (3, 0.7, 4096)


def test_the_newer_names_mean_the_same() -> None:
    """Percent; and zeros are defaults."""
    text = (
        '{"compression": {"thresholdPercent": 60}, "memory": {"minSimilarityPercent": 55, "topK": 0}, "sandbox": {}, '
        '"advisors": null}'
    )
    with pytest.raises(BadSetting):
        parse_loop_policy(text)
    policy = parse_loop_policy(text.replace("null", "[]"))
    assert policy is not None
    assert policy.compression is not None
    assert policy.memory is not None
    assert policy.sandbox is not None
    assert (policy.compression.share, policy.memory.similarity, policy.memory.most_found) == (0.6, 0.55, 3)
    assert (policy.sandbox.shown_bytes, policy.sandbox.preview, policy.sandbox.most_bytes) == (2048, 200, 52_428_800)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "invalid AGENT_LOOP_POLICY JSON: input data was truncated"),
        ("{x}", "invalid AGENT_LOOP_POLICY JSON: JSON is malformed"),
        ("[]", "invalid AGENT_LOOP_POLICY JSON: expected"),
        ('{"dedup": "yes"}', "invalid AGENT_LOOP_POLICY JSON: expected `bool`, got `str`"),
        ('{"memory": {"topK": -1}}', "invalid AGENT_LOOP_POLICY JSON: expected `int` >= 0"),
        ('{"compression": {"threshold": 0.5, "thresholdPercent": 50}}', "are two names of one number"),
        ('{"advisors": [{"name": "a"}, {"name": "A"}]}', "two advisors have the tool 'consult_a'"),
        ('{"advisors": [{"name": "a", "agent": "x", "model": "y"}]}', "has both an agent and a model"),
    ],
)
def test_bad_policies_are_refused_in_arks_words(text: str, said: str) -> None:
    """A worker does not start with one."""
    with pytest.raises(BadSetting, match="invalid AGENT_LOOP_POLICY JSON: ") as error:
        load_settings({"AGENT_LOOP_POLICY": text})
    assert said in str(error.value)


def test_what_a_newer_operator_says_is_left_out_with_a_warning() -> None:
    """So that its workers start."""
    with capture_logs() as logs:
        policy = parse_loop_policy('{"dedup": true, "telepathy": {}, "memory": {"store": true, "shards": 3}}')
    assert policy == LoopPolicy(dedup=True, memory=LoopMemory(store=True))
    assert logs[0]["fields"] == ["memory.shards", "telepathy"]


def test_a_policy_that_does_nothing_is_none() -> None:
    """Then runs do not look for one; and one's own, which does nothing, counts more than everybody's."""
    everybodys = LoopPolicy(dedup=True)
    assert in_force(None, None) is None
    assert in_force(None, everybodys) is everybodys
    assert in_force(LoopPolicy(), everybodys) is None
    assert in_force(LoopPolicy(memory=LoopMemory())) is None


def test_agents_of_the_file_have_their_own(tmp_path: Path) -> None:
    """Or the one of the file, or of the environment."""
    file = tmp_path / "shoal.yaml"
    file.write_text(
        "agent: {model: m}\n"
        "loop_policy: {dedup: true}\n"
        "agents:\n"
        "  one: {model: m, loop_policy: {sandbox: {thresholdBytes: 500}}}\n"
        "  two: {model: m}\n"
        "  three: {model: m, loop_policy: {}}\n"
    )
    directory = AgentDirectory(Roster(load_settings({}, file=file)))
    found = {name: directory.resolve(Task(prompt="x", agent=name)).loop_policy for name in ("one", "two", "three")}
    assert found["one"] == LoopPolicy(sandbox=SandboxPolicy(threshold_bytes=500))
    assert found["two"] == directory.resolve(Task(prompt="x")).loop_policy == LoopPolicy(dedup=True)
    assert found["three"] is None
    file.write_text("loop_policy: {dedupe: true}\n")
    with pytest.raises(BadSetting, match="loop_policy: object contains unknown field `dedupe`"):
        load_settings({}, file=file)


async def test_a_declared_agent_has_its_own(ground: Ground) -> None:
    """It counts for runs that begin from then on."""
    ground.plan.does([call("1", "look", topic="a")], [call("2", "look", topic="a")])
    async with await open_backend("memory://") as backend, open_worker(ground.settings(), backend):
        fleet = Fleet(backend)
        await fleet.agents.create("careful", provider="planned", model="m", loop_policy={"dedup": True})
        await done(backend, "go", agent="careful")
        stored = await fleet.agents.get("careful")
    assert ground.content("2") == SKIPPED
    assert stored.value.loop_policy == LoopPolicy(dedup=True)


CODER = (
    "  model: small\n"
    "  provider: mock\n"
    "  agents:\n"
    "    - name: architect\n"
    "      agentRef: {name: senior}\n"
    "      role: advisor\n"
    "      instructions: When in doubt.\n"
    "      contextPropagation: {recentMessages: 30, maxCallsPerTask: 5, timeoutSeconds: 90}\n"
    "  runtime:\n"
    "    loop:\n"
    "      dedup: true\n"
    "      sandbox: {thresholdBytes: 4096}\n"
    "      compression: {thresholdPercent: 60, model: tiny, preserveRecentTurns: 2}\n"
    "      memory: {ref: {name: shared}, store: true, retrieve: true, topK: 5, summaryTokens: 256}\n"
)
SENIOR = document("SwarmAgent", "  model: big\n  provider: mock\n  prompt: {inline: I am senior.}\n", name="senior")
SHARED = document("SwarmMemory", "  backend: vector-store\n", name="shared")


def _joined(*documents: str) -> str:
    return "---\n".join(documents)


def test_a_swarm_agent_has_all_of_it() -> None:
    """Its loop, and its advisors with what they are asked with."""
    [role] = bundle(_joined(document("SwarmAgent", CODER), SENIOR, SHARED)).plan("x").team.roles
    assert role.loop_policy == LoopPolicy(
        dedup=True,
        sandbox=SandboxPolicy(threshold_bytes=4096),
        compression=Compression(threshold_percent=60, model="tiny", preserve_recent_turns=2),
        memory=LoopMemory(store=True, retrieve=True, top_k=5, summary_tokens=256),
        advisors=(
            Advisor(
                name="architect",
                agent="senior",
                instructions="When in doubt.",
                recent_messages=30,
                max_calls_per_task=5,
                timeout_s=90,
            ),
        ),
    )
    asked = role.advisors["architect"]
    assert (asked.model, asked.provider, asked.system_prompt) == ("big", "mock", "I am senior.")
    assert isinstance(asked, AgentConfig)
    assert msgspec.json.decode(msgspec.json.encode(role), type=type(role)) == role


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ("{name: a, role: advisor}", "an advisor needs 'agentRef'"),
        ("{name: a, role: advisor, agentRef: nobody}", "unknown agent 'nobody'"),
        ("{name: a, role: advisor, agentRef: x}", "agent 'x' may not be its own advisor"),
        ("{name: a, agentRef: senior, contextPropagation: {toolName: b}}", "contextPropagation is for agents with"),
        ("{name: a, role: advisor, agentRef: senior, contextPropagation: {toolName: B}}", "'B' is no name of a tool"),
        ("{name: a, role: advisor, agentRef: senior, contextPropagation: {maxCallsPerTask: 51}}", "51"),
        ("{name: a, role: advisor, agentRef: deep}", "advisor 'deep' has advisors itself"),
    ],
)
def test_advisors_that_cannot_be(connection: str, said: str) -> None:
    """The message stands where the mistake is."""
    deep = document("SwarmAgent", "  model: m\n  agents: [{name: b, role: advisor, agentRef: senior}]\n", name="deep")
    text = _joined(document("SwarmAgent", f"  model: m\n  agents: [{connection}]\n"), SENIOR, deep)
    assert any(said in place for place in places(text)), places(text)


def test_a_denied_advisor_is_left_out() -> None:
    """`guardrails.tools.deny` counts for its tool as for any other."""
    text = _joined(document("SwarmAgent", CODER + "  guardrails: {tools: {deny: ['consult_*']}}\n"), SENIOR, SHARED)
    [role] = bundle(text).plan("x").team.roles
    assert role.loop_policy is not None
    assert (role.loop_policy.advisors, role.advisors) == ((), {})


def test_findings_need_a_vector_store() -> None:
    """A memory of another kind keeps what its role did, not what its tools found."""
    memory = document("SwarmMemory", "  backend: redis\n", name="shared")
    found = bundle(_joined(document("SwarmAgent", CODER), SENIOR, memory))
    [role] = found.plan("x").team.roles
    assert role.loop_policy is not None
    assert role.loop_policy.memory is None
    assert any("kept in vector stores alone" in str(each) for each in found.findings)
