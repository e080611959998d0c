"""The same team, said in the words of each generation, gives the same plan."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.teams.kinds.files import bundle, findings, places
from worker.teams.plan import Plan

ARK_FLOW = """
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: writer}
spec:
  model: mock
  systemPrompt: You write.
  limits: {maxTokensPerCall: 500, timeoutSeconds: 60, maxDailyTokens: 1000, maxConcurrentTasks: 4}
  replicas: 2
  mcpServers: [{name: kb, url: "http://kb/mcp"}]
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkFlow
metadata: {name: t}
spec:
  input: {topic: cats}
  steps:
    - name: writer
      arkAgent: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
AGENT_PIPELINE = """
apiVersion: agentops.agentops.io/v1alpha1
kind: AgentDeployment
metadata: {name: writer}
spec:
  model: mock
  systemPrompt: You write.
  limits: {maxTokensPerCall: 500, timeoutSeconds: 60, maxDailyTokens: 1000, maxConcurrentTasks: 4}
  replicas: 2
  mcpServers: [{name: kb, url: "http://kb/mcp"}]
---
apiVersion: agentops.agentops.io/v1alpha1
kind: AgentPipeline
metadata: {name: t}
spec:
  input: {topic: cats}
  steps:
    - name: writer
      agentDeployment: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
ARK_TEAM = """
apiVersion: arkonis.dev/v1alpha1
kind: ArkTeam
metadata: {name: t}
spec:
  input: {topic: cats}
  roles:
    - name: writer
      model: mock
      systemPrompt: You write.
      limits: {maxTokensPerCall: 500, timeoutSeconds: 60, maxDailyTokens: 1000, maxConcurrentTasks: 4}
      replicas: 2
      mcpServers: [{name: kb, url: "http://kb/mcp"}]
  pipeline:
    - role: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
MEMBERS = """
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: scribe}
spec:
  model: mock
  systemPrompt: You write.
  limits: {maxTokensPerCall: 500, timeoutSeconds: 60, maxDailyTokens: 1000, maxConcurrentTasks: 4}
  replicas: 2
  mcpServers: [{name: kb, url: "http://kb/mcp"}]
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkTeam
metadata: {name: t}
spec:
  input: {topic: cats}
  members: [{role: writer, arkAgent: scribe}]
  pipeline:
    - role: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
SWARM_AGENT = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmAgent
metadata: {name: scribe}
spec:
  model: mock
  prompt: {inline: You write.}
  guardrails: {limits: {tokensPerCall: 500, timeoutSeconds: 60, dailyTokens: 1000, concurrentTasks: 4}}
  runtime: {replicas: 2}
  tools: {mcp: [{name: kb, url: "http://kb/mcp"}]}
---
apiVersion: kubeswarm.io/v1beta3
kind: SwarmTeam
metadata: {name: t}
spec:
  input: {topic: cats}
  roles: [{name: writer, swarmAgent: scribe}]
  pipeline:
    - role: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
SWARM_INLINE = """
apiVersion: kubeswarm/v1alpha1
kind: SwarmTeam
metadata: {name: t}
spec:
  input: {topic: cats}
  roles:
    - name: writer
      model: mock
      prompt: {inline: You write.}
      limits: {tokensPerCall: 500, timeoutSeconds: 60, dailyTokens: 1000, concurrentTasks: 4}
      runtime: {replicas: 2}
      tools: {mcp: [{name: kb, url: "http://kb/mcp"}]}
  pipeline:
    - role: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
SWARM_INIT = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: t}
spec:
  input: {topic: cats}
  roles:
    - name: writer
      model: mock
      systemPrompt: You write.
      limits: {maxTokensPerCall: 500, timeoutSeconds: 60, maxDailyTokens: 1000, maxConcurrentTasks: 4}
      replicas: 2
      mcpServers: [{name: kb, url: "http://kb/mcp"}]
  pipeline:
    - role: writer
      inputs: {prompt: "{{ .pipeline.input.topic }}"}
  output: "{{ .steps.writer.output }}"
"""
GENERATIONS = {
    "ArkFlow": ARK_FLOW,
    "AgentPipeline": AGENT_PIPELINE,
    "ArkTeam": ARK_TEAM,
    "ArkTeam with members": MEMBERS,
    "SwarmTeam of agents": SWARM_AGENT,
    "SwarmTeam inline": SWARM_INLINE,
    "SwarmTeam as kubeswarm's init writes it": SWARM_INIT,
}


def _alike(plan: Plan) -> Plan:
    """Without what the generations differ in on purpose."""
    team = replace(plan.team, word="pipeline", wraps_outputs=True)
    return Plan(name=plan.name, teams=(team,))


@pytest.mark.parametrize("name", GENERATIONS)
def test_all_generations_mean_the_same(name: str) -> None:
    """Each generation's file has no warning, and its plan is that of the newest one."""
    plan = bundle(GENERATIONS[name]).plan("t")
    assert _alike(plan) == _alike(bundle(SWARM_INLINE).plan("t"))
    assert places(GENERATIONS[name], "warning") == []
    role = plan.team.roles[0]
    assert role.config.system_prompt == "You write."
    assert (role.config.max_tokens, role.timeout_s, role.daily_tokens, role.max_parallel) == (500, 60.0, 1000, 8)


@pytest.mark.parametrize(
    ("name", "word", "wraps"),
    [("ArkFlow", "flow", False), ("AgentPipeline", "flow", False), ("ArkTeam", "pipeline", True)],
)
def test_flows_have_raw_outputs_and_their_own_word(name: str, word: str, wraps: bool) -> None:
    """ArkFlow's texts say `flow`, and its templates see outputs as they are; later kinds wrap them."""
    team = bundle(GENERATIONS[name]).plan("t").team
    assert (team.word, team.wraps_outputs) == (word, wraps)


def test_fields_that_kubeswarm_has_dropped_are_honoured_with_a_note() -> None:
    """Its own `init` still writes them: they count, once told."""
    notes = [each.message for each in findings(SWARM_INIT, "note")]
    assert notes == [
        "kubeswarm itself no longer reads systemPrompt here, but prompt.inline",
        "kubeswarm itself no longer reads maxTokensPerCall here, but tokensPerCall",
        "kubeswarm itself no longer reads replicas here, but runtime.replicas",
        "kubeswarm itself no longer reads mcpServers here, but tools.mcp",
    ]


def test_a_kind_of_the_other_group_is_read_with_a_note() -> None:
    """The group says little about what a file means."""
    text = SWARM_INLINE.replace("kubeswarm/v1alpha1", "arkonis.dev/v1alpha1")
    assert [each.message for each in findings(text)] == ["SwarmTeam is a kind of kubeswarm.io: it is read all the same"]
    without = SWARM_INLINE.replace("apiVersion: kubeswarm/v1alpha1\n", "")
    assert [each.message for each in findings(without)] == [
        "SwarmTeam has no apiVersion: kubeswarm.io/v1alpha1 is assumed"
    ]


def test_somebody_elses_kinds_with_common_names_are_left_alone() -> None:
    """There are other products with an AgentConfig."""
    text = "apiVersion: acme.io/v1\nkind: AgentConfig\nmetadata: {name: x}\nspec: {anything: 1}\n"
    assert [each.message for each in findings(text)] == ["kind 'AgentConfig' is skipped"]


def test_the_digest_is_of_the_meaning_alone() -> None:
    """Two texts of the same plan have one digest: runs of both share it."""
    commented = "# a comment\n" + ARK_FLOW.replace("spec:\n", "spec:   # here\n")
    assert bundle(commented).plan("t").digest == bundle(ARK_FLOW).plan("t").digest
    assert bundle(ARK_FLOW.replace("cats", "dogs")).plan("t").digest != bundle(ARK_FLOW).plan("t").digest
