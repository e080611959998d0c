"""Everything that can be wrong with a team file is told at its line and column, all of it at once."""

from __future__ import annotations

import pytest

from tests.teams.kinds.files import AGENT, bundle, document, findings, flow, marks, places, team
from worker.teams.errors import BadTeamFile
from worker.teams.kinds.findings import MAX_FINDINGS

STEP = "{name: a, arkAgent: writer"
ROLES = "  roles: [{name: r, model: mock}, {name: s, model: mock}]\n"


def _step(more: str) -> str:
    return flow(f"{STEP}, {more}}}")


ERRORS: dict[str, tuple[str, list[str]]] = {
    "wrong type": (
        _step("dependsOn: «b"),
        ["it is text: use a list: a name (put '- ' before it)"],
    ),
    "wrong type of a number": (
        _step("timeoutSeconds: «soon"),
        ["it is 'soon': use a whole number of at least 1"],
    ),
    "a mapping where text is wanted": (
        _step("if: «{a: b}"),
        ["it is a mapping: use a text or a template, in quotes if it has braces"],
    ),
    "word that is not allowed": (
        _step("validate: {contains: x, onFailure: «Retry}"),
        ["it is 'Retry': use one of fail, retry (did you mean `retry`?)"],
    ),
    "number out of bounds": (
        _step("loop: {condition: x, maxIterations: «101}"),
        ["it is '101': use a whole number from 1 to 100"],
    ),
    "truth value": (
        document("ArkEvent", "  source: {type: webhook}\n  targets: [{team: t}]\n  suspended: «perhaps\n"),
        ["it is 'perhaps': use true or false"],
    ),
    "required field": (
        _step("loop: «{maxIterations: 3}"),
        ["a loop needs 'condition': a text or a template"],
    ),
    "no name": (
        "kind: ArkFlow\napiVersion: arkonis.dev/v1\nmetadata: «{labels: {}}\nspec: {steps: []}\n",
        ["ArkFlow needs metadata.name: a name"],
    ),
    "a name that is none": (
        "kind: ArkAgent\napiVersion: arkonis.dev/v1\nmetadata: {name: «my agent}\nspec: {model: m}\n",
        ["'my agent' is no name: use letters, digits, '-', '_' and '.', at most 253"],
    ),
    "a step's name that is none": (
        flow("{name: «'a:b', arkAgent: writer}"),
        ["'a:b' is no name: use letters, digits, '-', '_', '.' and spaces, at most 100"],
    ),
    "no spec": (
        "«kind: ArkAgent\napiVersion: arkonis.dev/v1\nmetadata: {name: x}\n",
        ["ArkAgent needs spec: a mapping"],
    ),
    "exclusive fields": (
        document("SwarmAgent", "  model: m\n  prompt: {inline: a, «from: {configMapKeyRef: {name: c, key: k}}}\n"),
        ["'inline' and 'from' exclude each other: leave out all but one"],
    ),
    "a role of two things": (
        team("  roles:\n    - {name: r, swarmAgent: writer, «model: mock}\n", AGENT),
        ["'swarmAgent' and 'model' exclude each other: leave out all but one"],
    ),
    "roles and routing": (
        team(ROLES + "  «routing: {fallback: writer}\n", AGENT),
        ["'roles' and 'routing' exclude each other: leave out all but one"],
    ),
    "the same agent twice": (
        AGENT + "---\n" + AGENT.replace("writer", "«writer"),
        ["ArkAgent 'writer' is there twice, first in line 3"],
    ),
    "the same step twice": (
        flow(STEP + "}", (STEP + "}").replace("a,", "«a,")),
        ["step 'a' is there twice, first in line 6: give them names"],
    ),
    "the same role twice": (
        team("  roles:\n    - {name: r, model: m}\n    - {name: «r, model: m}\n"),
        ["'r' is there twice, first in line 6"],
    ),
    "unknown agent": (
        flow("{name: a, arkAgent: «writr}"),
        [
            (
                'step "a" references unknown ArkAgent "writr" (did you mean `writer`?); `agent:` names one that the '
                "fleet has"
            )
        ],
    ),
    "unknown role": (
        team(ROLES + "  pipeline: [{role: «q}]\n"),
        ['step "q" references unknown role "q"'],
    ),
    "unknown dependency": (
        _step("dependsOn: [«b]"),
        ['invalid DAG: step "a" depends on unknown step "b"'],
    ),
    "cycle": (
        flow(STEP + ", dependsOn: [b]}", "{name: b, arkAgent: writer, dependsOn: «[a]}"),
        ['invalid DAG: cycle detected: step "b" → "a" forms a cycle'],
    ),
    "cycle of one": (
        _step("dependsOn: «[a]"),
        ['invalid DAG: cycle detected: step "a" → "a" forms a cycle'],
    ),
    "template in quotes": (
        _step('inputs: {x: "{{ .input.y | «nothing }}"}'),
        ["the template cannot be read: function 'nothing' is not defined"],
    ),
    "template in a block": (
        flow(STEP + "}", more="  output: |\n    first\n      {{ if «}}\n"),
        ["the template cannot be read: if needs a value"],
    ),
    "regular expression": (
        _step("validate: {rejectPatterns: [«'(']}"),
        ["'(' is no regular expression"],
    ),
    "JSON schema": (
        _step('outputSchema: «\'{"type": "objekt"}\''),
        ["it is no JSON Schema: "],
    ),
    "schema that is no JSON": (
        _step("outputSchema: «'{'"),
        ["it is no JSON: "],
    ),
    "cron": (
        document("ArkEvent", '  source: {type: cron, cron: «"61 * * * *"}\n  targets: [{team: t}]\n'),
        [""],
    ),
    "MCP server": (
        document("ArkAgent", "  model: m\n  mcpServers: [«{name: kb, url: ftp://kb}]\n"),
        ["MCP server 'kb' has url 'ftp://kb': use http://host/path or https://host/path"],
    ),
    "the same MCP server twice": (
        document(
            "ArkAgent",
            "  model: m\n  mcpServers: [{name: kb, url: 'http://a/'}]\n  tools: {mcp: [{name: «kb, url: 'http://b/'}]}\n",
        ),
        ["MCP server 'kb' is there twice"],
    ),
    "webhook": (
        document("ArkAgent", '  model: m\n  tools: [«{name: "a b", url: "http://x/y"}]\n'),
        ["webhook tool 'a b': a tool's name is 1 to 64 letters, digits, '_' or '-'"],
    ),
    "a webhook's schema": (
        document("ArkAgent", "  model: m\n  tools: [{name: ab, url: \"http://x/y\", inputSchema: «'{'}]\n"),
        ["webhook tool 'ab' has a bad inputSchema"],
    ),
    "unknown settings": (
        document("ArkAgent", "  model: m\n  configRef: «{name: nix}\n"),
        ["unknown settings 'nix'"],
    ),
    "unknown memory": (
        document("ArkAgent", "  model: m\n  memoryRef: «{name: nix}\n"),
        ["unknown memory 'nix'"],
    ),
    "unknown team as a role": (
        team("  roles: [{name: r, swarmTeam: «nix}]\n  pipeline: [{role: r}]\n"),
        ["unknown team 'nix'; there are t"],
    ),
    "a team that is its own part": (
        team("  roles: [{name: r, swarmTeam: «t}]\n  pipeline: [{role: r}]\n"),
        ['cycle detected: team "t" → "t" forms a cycle'],
    ),
    "delegation to nobody": (
        team("  entry: r\n  roles: [{name: r, model: m, canDelegate: [«s]}]\n"),
        ["unknown role 's'; there are r"],
    ),
    "delegation to itself": (
        team("  entry: r\n  roles: [{name: r, model: m, canDelegate: [«r]}]\n"),
        ["role 'r' may not delegate to itself"],
    ),
    "no entry": (team("  «" + ROLES.lstrip()), ["a team without a pipeline needs 'entry': one of r, s"]),
    "unknown entry": (team(ROLES + "  entry: «t\n"), ["entry is unknown role 't'"]),
    "two entries": (
        document(
            "ArkTeam", "  members:\n    - {role: a, model: m, entry: true}\n    - {role: b, model: m, entry: «true}\n"
        ),
        ["a team has one entry, and 'a' is it already"],
    ),
    "nothing in it": (
        team("  «timeoutSeconds: 3\n"),
        ["SwarmTeam 't' has neither steps nor roles: give it a pipeline, or roles with an entry"],
    ),
    "nothing to route to": (
        team("  routing: «{model: m}\n"),
        ["no agent of the file has capabilities, and there is no fallback: the router has nothing to choose from"],
    ),
    "a default that does not fit": (
        team(ROLES + "  entry: r\n  inputs: [{name: n, type: number, default: «many}]\n"),
        ["the default of input 'n' is 'many': use a number"],
    ),
    "search mode": (
        team(ROLES + "  «search: {strategy: BFS}\n"),
        ["search mode is not there: use a pipeline, delegation (entry, canDelegate) or routing"],
    ),
    "artifact of nobody": (
        _step("inputArtifacts: {x: «b.pdf}"),
        ["no step puts out artifact 'b.pdf': use <step>.<artifact>, one of its outputArtifacts"],
    ),
    "policy of another strategy": (
        _step("contextPolicy: {strategy: full, «extract: {path: $.a}}"),
        ["extract is for strategy 'extract', and the strategy is 'full'"],
    ),
    "base64": (
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\ndata: {KEY: «plain text}\n",
        ["the value is no base64 of a text: use stringData for plain text"],
    ),
    "target of two things": (
        document("SwarmEvent", "  source: {type: webhook}\n  targets: [{team: t, «agent: a, prompt: p}]\n"),
        ["'team' and 'agent' exclude each other: leave out all but one"],
    ),
    "webhook with a schedule": (
        document("SwarmEvent", "  source: {type: webhook, «cron: '@daily'}\n  targets: [{team: t}]\n"),
        ["cron is for type cron, and the type is webhook"],
    ),
    "a time zone": (
        document(
            "ArkEvent",
            "  source: {type: cron, cron: '@daily', timeZone: «Europe/Berlni}\n  targets: [{team: t}]\n",
        ),
        ["'Europe/Berlni' is no time zone: use a name such as Europe/Berlin"],
    ),
    "a webhook without an address": (
        document("SwarmNotify", "  channels: [{type: webhook, webhook: «{method: PUT}}]\n"),
        ["a webhook needs 'url', 'urlFrom' or 'urlEnv'"],
    ),
    "a Slack webhook without an address": (
        document("SwarmNotify", "  channels: [{type: slack, slack: «{webhookUrl: x}}]\n"),
        ["a Slack webhook needs 'webhookURLFrom' or 'webhookUrlEnv'"],
    ),
    "channel without an address": (
        document("SwarmNotify", "  channels: [«{type: slack}]\n"),
        ["type slack needs 'slack': where it goes"],
    ),
    "event that does not exist": (
        document("SwarmNotify", "  on: [«TeamFailled]\n  channels: [{type: webhook, webhook: {url: 'http://x/'}}]\n"),
        [
            (
                "it is 'TeamFailled': use one of TeamSucceeded, TeamFailed, TeamTimedOut, TeamCancelled, "
                "BudgetWarning, BudgetExceeded, DailyLimitReached, AgentDegraded (did you mean `TeamFailed`?)"
            )
        ],
    ),
    "run of nobody": (
        document("SwarmRun", "  teamRef: «nix\n"),
        ["unknown team 'nix'"],
    ),
    "time span": (
        _step("approval: {timeoutSeconds: «soon}"),
        ["it is 'soon': use a time span such as 90s, 5m or 168h"],
    ),
    "time span without an end": (
        _step(f"approval: {{timeoutSeconds: «'{'9' * 100_000}s'}}"),
        [f"it is '{'9' * 60}…': use a time span such as 90s, 5m or 168h, at most a year"],
    ),
    "time span of ages": (
        _step("approval: {timeoutSeconds: «1e99}"),
        ["it is '1e99': use a time span such as 90s, 5m or 168h, at most a year"],
    ),
    "number that no counter holds": (
        flow(f"{STEP}}}", more="  maxTokens: «1e30\n"),
        ["it is '1e30', which is too large: use a whole number of at least 1"],
    ),
    "schedule without an end": (
        document("ArkEvent", f"  source: {{type: cron, cron: «'{'1,' * 9999}1 * * * *'}}\n  targets: [{{team: t}}]\n"),
        [f"cron is '{'1,' * 20}'…, 20007 characters: use at most 500"],
    ),
    "name of a header": (
        document(
            "SwarmAgent",
            "  model: m\n  tools: {mcp: [«{name: k, url: 'http://k/', headers: [{name: 'a: b', value: c}]}]}\n",
        ),
        ["MCP server 'k' has header 'a: b': a name is letters, digits and !#$%&'*+.^_`|~-"],
    ),
    "an approval's webhook": (
        _step("approval: {webhook: «'ftp://x'}"),
        ["'ftp://x' is no URL: use http://host/path or https://host/path"],
    ),
    "memory of another backend": (
        document("ArkMemory", "  backend: in-context\n  «redis: {secretRef: {name: r}}\n")
        + "---\n"
        + document("ArkAgent", "  model: m\n  memoryRef: x\n", name="a"),
        ["redis is for backend 'redis', and the backend is 'in-context'"],
    ),
    "forbidden MCP server": (
        document("SwarmSettings", "  security: {mcpAllowlist: ['https://ours/']}\n")
        + "---\n"
        + document("SwarmAgent", "  model: m\n  tools: {mcp: [{name: kb, url: «'https://theirs/'}]}\n"),
        ["SwarmSettings 'x' allows MCP servers of https://ours/ alone"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_its_place(name: str) -> None:
    """Given a file with one thing wrong, that is told: line, column, what it is and what is allowed."""
    marked, expected = ERRORS[name]
    text, at = marks(marked)
    found = places(text)
    assert len(found) == len(expected), found
    for told, place, wanted in zip(found, at, expected, strict=True):
        assert told.startswith(f"{place}: {wanted}"), told
    with pytest.raises(BadTeamFile, match=r"team\.yaml:\d+:\d+: error: "):
        bundle(text)


def test_all_errors_are_told_at_once() -> None:
    """Nobody wants to mend a file error by error."""
    text, at = marks(
        flow(
            "{name: a, arkAgent: «nobody, dependsOn: [«b], timeoutSeconds: «0, validate: {contains: «'('}}",
            more="  maxTokens: «no\n",
        )
    )
    assert [each.split(": ")[0] for each in places(text)] == at
    with pytest.raises(BadTeamFile) as told:
        bundle(text)
    assert str(told.value).count("\n") == 4


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        (
            flow("{name: a, arkAgent: writer, «dependson: []}"),
            ["unknown field 'dependson' of a step: it is not read (did you mean `dependsOn`?)"],
        ),
        (
            flow(STEP + "}", more="«spce: {}\n"),
            ["unknown field 'spce' of ArkFlow: it is not read (did you mean `spec`?)"],
        ),
        (_step('inputs: {x: "{{ «.steps.b.output }}"}'), ["there is no step 'b'"]),
        (
            flow(STEP + ', inputs: {x: "{{ «.steps.bb.output }}"}}', "{name: bb, arkAgent: writer}"),
            ["step 'bb' is not upstream of 'a': it may not have ended; add it to dependsOn"],
        ),
        (
            flow("{name: b, arkAgent: writer}", STEP + ', dependsOn: [b], inputs: {x: "{{ «.steps.b.text }}"}}'),
            ["steps have no 'text': use output, rawOutput, status, data, artifacts"],
        ),
        (
            flow(
                STEP + ', inputs: {x: "{{ «.input.topik }}", y: "{{ «.pipeline.input.z }}"}}',
                more="  inputs: [{name: topic}]\n",
            ),
            ["input 'topik' is not declared (did you mean `topic`?)", "input 'z' is not declared"],
        ),
        (
            flow(STEP + "}", more='  output: |\n    x\n    {{ index «.steps "c" "output" }}{{ «.trigger.name }}\n'),
            [
                "there is no step 'c'",
                ".trigger is never there: templates have .input, .pipeline.input and .steps",
            ],
        ),
        (
            team("  roles: [{name: r, swarmAgent: writer, «limits: {timeoutSeconds: 3}}]\n", AGENT),
            ["limits is not used: the role is fulfilled by 'writer'"],
        ),
        (flow(STEP + "}", more="  notifyRef: «{name: n}\n"), ["notification policy 'n' is not in this file"]),
        (
            _step("registryLookup: {capability: «sql, tags: [x]}"),
            ["no agent of the file has capability 'sql'"],
        ),
        (
            document("SwarmEvent", "  source: {type: webhook}\n  targets: [{team: «nix}]\n"),
            ["team 'nix' is not in this file: the fleet has to have it"],
        ),
    ],
)
def test_what_is_probably_a_mistake_is_a_warning(marked: str, expected: list[str]) -> None:
    """The file can be used, and its author is told of what will not do what he thinks."""
    text, at = marks(marked)
    found = places(text, "warning")
    assert len(found) == len(expected), found
    for told, place, wanted in zip(found, at, expected, strict=True):
        assert told.startswith(f"{place}: {wanted}"), told
    assert places(text) == []


@pytest.mark.parametrize(
    "template",
    [
        "{{ .input.anything }}",
        "{{ range .steps.b.data.items }}{{ .title }}{{ .input }}{{ end }}",
        "{{ with .steps.b.data }}{{ .x }}{{ $.steps.b.output }}{{ end }}",
        "{{ $x := .steps.b.output }}{{ $x }}",
        '{{ if and .steps.b.data.ok (eq (index .steps "b" "status") "Succeeded") }}y{{ else }}{{ .input.z }}{{ end }}',
        'no template: {{ "steps.nobody" }}',
    ],
)
def test_references_that_are_right_are_left_alone(template: str) -> None:
    """Inside of `with` and `range` the dot is something else."""
    text = flow("{name: b, arkAgent: writer}", f"{STEP}, dependsOn: [b], inputs: {{x: '{template}'}}}}")
    assert findings(text) == []


def test_a_loop_may_look_at_its_own_step() -> None:
    """Its condition is evaluated after the step."""
    text = _step("loop: {condition: '{{ lt .steps.a.data.score 5 }}'}, inputs: {x: '{{ .steps.a.output }}'}")
    assert findings(text) == []


def test_what_has_no_meaning_here_is_noted_once() -> None:
    """Twenty roles with resources are one note."""
    roles = "".join(f"    - {{name: r{n}, model: m, resources: {{limits: {{cpu: 1}}}}}}\n" for n in range(20))
    text = team(f"  entry: r0\n  roles:\n{roles}")
    assert [str(each) for each in findings(text)] == [
        "team.yaml:7:28: note: spec.roles[0].resources: workers have what their machine gives them"
    ]


def test_a_finding_is_one_line() -> None:
    """Whatever stands in the file, its message is a line of text."""
    text = flow('{name: a, arkAgent: "x\\ny\\u001b[31m"}')
    assert all("\n" not in str(each) and "\x1b" not in str(each) for each in findings(text))


def test_reading_stops_when_there_is_too_much_to_tell() -> None:
    """A file of nothing but mistakes is not read to its end: thousands of hints would take minutes."""
    text = flow("{name: a, arkAgent: writer}", more="".join(f"  spec{n}: 1\n" for n in range(5000)))
    found = findings(text)
    assert len(found) == MAX_FINDINGS + 1
    assert found[-1].message == f"reading stopped here, after {MAX_FINDINGS} findings"
    with pytest.raises(BadTeamFile, match="reading stopped here"):
        bundle(text)
