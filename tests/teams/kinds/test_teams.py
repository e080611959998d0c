"""Pipelines, dynamic teams, routed teams, teams of teams."""

from __future__ import annotations

from tests.teams.kinds.files import AGENT, bundle, document, findings, flow, places, team
from worker.teams.plan import ROUTE, ROUTER, Approval, ContextPolicy, Lookup, Loop, Validation

CAPABLE = (
    document(
        "SwarmAgent", "  model: m1\n  capabilities: [{name: sql, description: Queries., tags: [data]}]\n", name="dba"
    ),
    document("SwarmAgent", "  model: m2\n  capabilities: [{id: review}]\n  registryRef: other\n", name="reviewer"),
    document("SwarmAgent", "  model: m3\n", name="helper"),
)


def test_a_step_with_everything() -> None:
    """Each field of a step finds its place, in the file's order."""
    text = flow(
        "{name: b, arkAgent: writer, outputArtifacts: [{name: report.pdf, contentType: application/pdf}, log.txt]}",
        more="""\
    - name: a
      role: writer
      dependsOn: [b]
      inputs: {z: "{{ .steps.b.output }}", a: 1, m: true}
      if: '{{ .input.on }}'
      loop: {condition: "{{ .steps.a.data.more }}", maxIterations: 3}
      outputSchema: {type: object, properties: {more: {type: boolean}}}
      validate:
        rejectPatterns: ['(?i)ignore']
        contains: '^x'
        schema: '{"required": ["more"]}'
        semantic: Is it good?
        semanticModel: big
        onFailure: retry
        maxRetries: 0
      contextPolicy: {strategy: compress, compress: {targetTokens: 50, model: small, prompt: Shorten.}}
      maxOutputBytes: 0
      inputArtifacts: {paper: b.report.pdf}
      provider: mock
      model: other
      timeoutSeconds: 9
      approval: true
  output: "{{ .steps.a.output }}"
  timeoutSeconds: 60
  maxTokens: 1000
  limits: {maxDailyTokens: 5000}
  maxDepth: 2
  description: All of it.
  defaultContextPolicy: {strategy: extract, extract: {path: $.a}}
  successfulRunsHistoryLimit: 4
  failedRunsHistoryLimit: 2
  artifactStore: {type: local, local: {path: /data}}
""",
    )
    found = bundle(text.replace("  steps:", "  roles: [{name: writer, arkAgent: writer}]\n  steps:", 1)).plan().team
    step = found.step("a")
    assert list(step.inputs.items()) == [("z", "{{ .steps.b.output }}"), ("a", "1"), ("m", "true")]
    assert (step.depends_on, step.condition) == (("b",), "{{ .input.on }}")
    assert step.loop == Loop(condition="{{ .steps.a.data.more }}", max_iterations=3)
    assert step.output_schema == {"type": "object", "properties": {"more": {"type": "boolean"}}}
    assert step.validation == Validation(
        reject_patterns=("(?i)ignore",),
        contains="^x",
        schema={"required": ["more"]},
        semantic="Is it good?",
        semantic_model="big",
        on_failure="retry",
        max_retries=0,
    )
    assert step.context_policy == ContextPolicy(strategy="compress", target_tokens=50, model="small", prompt="Shorten.")
    assert (step.max_output_bytes, step.provider, step.model, step.timeout_s) == (0, "mock", "other", 9.0)
    assert step.approval == Approval()
    assert step.input_artifacts == {"paper": "b.report.pdf"}
    assert found.step("b").output_artifacts == ("report.pdf", "log.txt")
    assert (found.timeout_s, found.max_tokens, found.max_daily_tokens, found.max_depth) == (60.0, 1000, 5000, 2)
    assert found.default_context_policy == ContextPolicy(strategy="extract", path="$.a")
    assert (found.successful_runs_kept, found.failed_runs_kept) == (4, 2)
    assert (found.artifact_dir, found.description) == ("/data", "All of it.")


def test_steps_of_one_role_need_names() -> None:
    """A step is called as its role unless it has a name: two of one role may be told apart."""
    text = team("  roles: [{name: r, model: m}]\n  pipeline: [{role: r}, {role: r, name: again, dependsOn: [r]}]\n")
    found = bundle(text).plan().team
    assert [(step.name, step.role) for step in found.steps] == [("r", "r"), ("again", "r")]
    assert len(found.roles) == 1


def test_a_dynamic_team_has_one_step() -> None:
    """The entry's; whom it may delegate to is the roles' own."""
    text = team(
        "  entry: lead\n"
        "  maxDepth: 3\n"
        "  roles:\n"
        "    - {name: lead, model: m, canDelegate: [a, b]}\n"
        "    - {name: a, model: m, canDelegate: [b]}\n"
        "    - {name: b, swarmAgent: writer}\n",
        AGENT,
    )
    found = bundle(text).plan().team
    assert (found.mode, found.entry, found.max_depth) == ("dynamic", "lead", 3)
    assert [(step.name, step.role) for step in found.steps] == [("lead", "lead")]
    assert [role.can_delegate for role in found.roles] == [("a", "b"), ("b",), ()]


def test_ark_teams_are_dynamic_too() -> None:
    """In the older form, whoever is marked is the entry."""
    text = document(
        "ArkTeam",
        "  members:\n    - {role: lead, arkAgent: writer, entry: true, delegates: [aide]}\n"
        "    - {role: aide, arkAgent: writer}\n",
    )
    found = bundle(text + "---\n" + AGENT).plan().team
    assert (found.entry, found.roles[0].can_delegate, found.roles[1].config.model) == ("lead", ("aide",), "mock")


def test_a_routed_team_has_a_router_and_those_it_chooses_from() -> None:
    """The agents of its registry that say what they can do, and the fallback."""
    text = team(
        "  routing: {registryRef: {name: ops}, model: small, provider: mock, systemPrompt: Choose., fallback: helper}\n"
        "  timeoutSeconds: 9\n",
        document("SwarmRegistry", "  policy: {maxDepth: 2}\n", name="ops"),
        *CAPABLE,
    )
    found = bundle(text).plan().team
    assert (found.mode, found.max_depth, found.timeout_s) == ("routed", 2, 9.0)
    assert [role.name for role in found.roles] == [ROUTER, "dba", "helper"]
    router = found.roles[0].config
    assert (router.model, router.provider, router.system_prompt) == ("small", "mock", "Choose.")
    assert [(step.name, step.role, step.depends_on) for step in found.steps] == [
        (ROUTER, ROUTER, ()),
        (ROUTE, "helper", (ROUTER,)),
    ]
    assert found.roles[1].capabilities[0].tags == ("data",)


def test_without_a_registry_all_capable_agents_are_routed_to() -> None:
    """As the original takes the first registry it finds."""
    found = bundle(team("  routing: {model: small}\n", *CAPABLE)).plan().team
    assert [role.name for role in found.roles] == [ROUTER, "dba", "reviewer"]


def test_a_lookup_brings_those_it_may_choose() -> None:
    """All capable agents of the file are roles of the team, and the fallback is."""
    text = team(
        "  roles: [{name: editor, model: m}]\n"
        "  pipeline:\n"
        "    - role: query\n"
        "      registryLookup: {capability: sql, tags: [data], strategy: round-robin, fallback: helper}\n"
        "      inputs: {q: x}\n"
        "    - {role: editor, dependsOn: [query]}\n",
        *CAPABLE,
    )
    found = bundle(text).plan().team
    assert [role.name for role in found.roles] == ["editor", "dba", "reviewer", "helper"]
    step = found.step("query")
    assert step.lookup == Lookup(capability="sql", tags=("data",), strategy="round-robin", fallback="helper")
    assert step.role == "helper"


def test_teams_of_teams_are_in_the_plan() -> None:
    """A plan has all that its run needs, and nothing else."""
    text = "---\n".join(
        [
            team("  roles: [{name: r, swarmTeam: inner}]\n  pipeline: [{role: r}]\n"),
            document(
                "SwarmTeam", "  roles: [{name: q, swarmTeam: innermost}]\n  pipeline: [{role: q}]\n", name="inner"
            ),
            document("SwarmTeam", "  roles: [{name: z, model: m}]\n  pipeline: [{role: z}]\n", name="innermost"),
            document("SwarmTeam", "  roles: [{name: z, model: m}]\n  pipeline: [{role: z}]\n", name="unrelated"),
        ]
    )
    found = bundle(text)
    assert found.teams == ("t", "inner", "innermost", "unrelated")
    assert [each.name for each in found.plan().teams] == ["t", "inner", "innermost"]
    assert found.plan().team.roles[0].team == "inner"


def test_a_circle_of_teams_is_refused() -> None:
    """Its runs would never end."""
    text = "---\n".join(
        [
            team("  roles: [{name: r, swarmTeam: inner}]\n  pipeline: [{role: r}]\n"),
            document("SwarmTeam", "  roles: [{name: q, swarmTeam: t}]\n  pipeline: [{role: q}]\n", name="inner"),
        ]
    )
    assert [each.partition(": ")[2] for each in places(text)] == ['cycle detected: team "inner" → "t" forms a cycle']


def test_a_large_graph_is_checked_without_recursion() -> None:
    """A thousand steps one after the other are no cycle, and no overflow."""
    steps = [f"{{name: s{n}, arkAgent: writer, dependsOn: [{f's{n - 1}' if n else ''}]}}" for n in range(1000)]
    assert findings(flow(*steps)) == []
    steps[0] = "{name: s0, arkAgent: writer, dependsOn: [s999]}"
    assert len(places(flow(*steps))) == 1


def test_a_list_is_read_item_by_item() -> None:
    """As `kubectl get -o yaml` writes what a cluster has, with all that Kubernetes has added."""
    text = """\
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
  - apiVersion: arkonis.dev/v1alpha1
    kind: ArkAgent
    metadata: {name: writer, uid: 1-2, generation: 3, managedFields: [{manager: kubectl}]}
    spec: {model: m}
    status: {readyReplicas: 1}
  - apiVersion: arkonis.dev/v1alpha1
    kind: ArkFlow
    metadata: {name: f}
    spec: {steps: [{name: a, arkAgent: writer}]}
"""
    found = bundle(text)
    assert (found.teams, found.agents, found.findings) == (("f",), ("writer",), ())


def test_a_team_and_an_agent_of_one_name() -> None:
    """The name means the team."""
    text = team(
        "  roles: [{name: r, model: m}]\n  pipeline: [{role: r}]\n", document("SwarmAgent", "  model: m\n", name="t")
    )
    assert bundle(text).plan("t").team.mode == "pipeline"
