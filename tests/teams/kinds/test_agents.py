"""Agents and inline roles: prompts, limits, tools, approvals, memories."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.messages import Thinking
from tests.teams.kinds.files import bundle, document, findings, marks, places, team
from worker.loop_policy import LoopPolicy
from worker.teams.plan import Approval, Capability, MemorySpec, Role

SETTINGS = document(
    "SwarmSettings",
    "  temperature: '0.3'\n"
    "  fragments:\n"
    "    - {name: persona, position: prepend, text: You are kind.}\n"
    "    - {name: rules, text: Be brief.}\n",
    name="base",
)
MORE = document(
    "SwarmSettings",
    "  temperature: 0.9\n  fragments: [{name: rules, text: Be very brief.}, {name: end, text: Say bye.}]\n",
    name="more",
)
OLD = document("ArkSettings", "  promptFragments: {persona: An old hand., outputRules: JSON only.}\n", name="old")


def _role(spec: str, *documents: str, kind: str = "SwarmAgent", folder: Path | None = None) -> Role:
    text = "---\n".join([document(kind, spec, name="a"), *documents])
    [role] = bundle(text, folder).plan("a").team.roles
    return role


def test_an_agent_alone_is_a_plan_of_one() -> None:
    """It is given what the run is given: there is one step, which has no inputs of its own."""
    team = bundle(document("ArkAgent", "  model: m\n  systemPrompt: p\n", name="a")).plan("a").team
    assert (team.mode, team.entry, [step.name for step in team.steps]) == ("dynamic", "a", ["a"])
    assert team.steps[0].inputs == {}


def test_settings_are_composed_in_their_order() -> None:
    """Fragments before and after the agent's own text; the last of a name counts, as does the last temperature."""
    role = _role("  model: m\n  prompt: {inline: Write.}\n  settings: [{name: base}, {name: more}]\n", SETTINGS, MORE)
    assert role.config.system_prompt == "You are kind.\n\nWrite.\n\nBe very brief.\n\nSay bye."
    assert role.config.temperature == 0.9
    turned = _role("  model: m\n  prompt: Write.\n  settings: [more, base]\n  temperature: 0.1\n", SETTINGS, MORE)
    assert turned.config.system_prompt == "You are kind.\n\nWrite.\n\nBe brief.\n\nSay bye."
    assert turned.config.temperature == 0.1


def test_the_older_fragments_are_composed_too() -> None:
    """`configRef` and `promptFragments` are ark's first form of the same."""
    role = _role("  model: m\n  systemPrompt: Write.\n  configRef: {name: old}\n", OLD, kind="ArkAgent")
    assert role.config.system_prompt == "An old hand.\n\nWrite.\n\nJSON only."


def test_settings_say_how_much_to_reason() -> None:
    """Unless the agent says it itself."""
    settings = document("SwarmSettings", "  reasoning: {mode: Auto, effort: Low}\n", name="s")
    assert _role("  model: m\n  settings: [s]\n", settings).config.thinking == Thinking(effort="low")
    own = _role("  model: m\n  settings: [s]\n  reasoning: {mode: Disabled}\n", settings)
    assert own.config.thinking is None


def test_instructions_of_tool_servers_end_the_prompt() -> None:
    """In either generation's word for them."""
    role = _role(
        "  model: m\n  prompt: Write.\n  tools:\n    mcp:\n"
        "      - {name: kb, url: 'http://kb/', instructions: Search by product.}\n"
        "      - {name: web, url: 'http://web/', guidance: Public pages only.}\n"
    )
    assert role.config.system_prompt == (
        "Write.\n\n## MCP Tool Guidance\n\n### kb\n\nSearch by product.\n\n### web\n\nPublic pages only."
    )


@pytest.mark.parametrize(
    "source",
    [
        "prompt: {from: {configMapKeyRef: {name: prompts, key: a.txt}}}",
        "systemPromptRef: {configMapKeyRef: {name: prompts, key: a.txt}}",
        "prompt: {from: {secretKeyRef: {name: hidden, key: a}}}",
        "prompt: {from: {fileRef: {path: prompts/a.md}}}",
        "systemPromptRef: {fileRef: {path: prompts/a.md}}",
    ],
)
def test_prompts_come_from_elsewhere(source: str, tmp_path: Path) -> None:
    """From a ConfigMap or a Secret of the file, or from a file beside it."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.md").write_text("Out of a file.\n")
    maps = (
        "kind: ConfigMap\nmetadata: {name: prompts}\ndata: {a.txt: 'Out of a file.'}\n",
        "kind: Secret\nmetadata: {name: hidden}\nstringData: {a: Out of a file.}\n",
    )
    assert _role(f"  model: m\n  {source}\n", *maps, folder=tmp_path).config.system_prompt == "Out of a file."


def test_a_prompts_file_has_to_be_near(tmp_path: Path) -> None:
    """A prompt is read by all who use the agent: nobody shall get the machine's other files with it."""
    text = document("SwarmAgent", "  model: m\n  prompt: {from: {fileRef: {path: ../../etc/hostname}}}\n")
    assert places(text) == ["6:35: '../../etc/hostname' is outside of the file's folder: move it there"]


def test_a_prompt_that_cannot_be_found_is_a_warning() -> None:
    """As in the original, the agent goes without it; the inline text counts if there is one."""
    text = document(
        "ArkAgent", "  model: m\n  systemPrompt: Inline.\n  systemPromptRef: {configMapKeyRef: {name: c, key: k}}\n"
    )
    assert bundle(text).plan("x").team.roles[0].config.system_prompt == "Inline."
    assert places(text, "warning") == ["7:38: there is no key 'k' of ConfigMap 'c': the inline text is used"]


def test_what_an_agent_is_made_of() -> None:
    """All that has a place in a role finds it."""
    role = _role(
        "  model: claude-x\n"
        "  provider: anthropic\n"
        "  description: Does it all.\n"
        "  temperature: 0.5\n"
        "  maxTurns: 7\n"
        "  options: {extra_body: {a: [1, true]}}\n"
        "  reasoning: {mode: Auto, effort: High, budgetTokens: 9000}\n"
        "  guardrails: {limits: {tokensPerCall: 100, maxThinkingTokensPerCall: 4000}}\n"
        "  runtime: {loop: {dedup: true}}\n"
        "  requireApproval: [crm/delete_*, send_mail]\n"
        "  approval: {message: 'May I?', timeoutSeconds: 2h, fallback: skip, webhook: 'https://x/'}\n"
        "  capabilities: [{name: write, description: 'a\n\n    b', tags: [t]}, {id: old}]\n"
        "  apiKeyRef: {name: keys, key: MY_KEY, optional: true}\n"
    )
    config = role.config
    assert (config.model, config.provider, config.max_tokens, config.max_turns) == ("claude-x", "anthropic", 100, 7)
    assert (config.temperature, config.api_key_env) == (0.5, "MY_KEY")
    assert role.loop_policy == LoopPolicy(dedup=True)
    assert config.options == {"extra_body": {"a": [1, True]}}
    assert config.thinking == Thinking(budget_tokens=4000, effort="high")
    assert role.description == "Does it all."
    assert role.approve_tools == ("crm__delete_*", "send_mail")
    assert role.approval == Approval(message="May I?", timeout_s=7200.0, fallback="skip", webhook="https://x/")
    assert role.capabilities == (Capability(name="write", description="a b", tags=("t",)), Capability(name="old"))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", 0),
        ("  runtime: {replicas: 3}\n", 15),
        ("  guardrails: {limits: {concurrentTasks: 2}}\n", 2),
        ("  replicas: 3\n  limits: {maxConcurrentTasks: 2}\n", 6),
        ("  replicas: 0\n", 0),
    ],
)
def test_replicas_times_tasks_is_how_much_runs_at_a_time(spec: str, expected: int) -> None:
    """Where the original would have pods; nothing given is no limit."""
    assert _role("  model: m\n" + spec, kind="ArkAgent").max_parallel == expected


def test_tools_are_allowed_and_denied_by_server() -> None:
    """`server/tool` patterns become the servers' own lists; a server that nothing is allowed of is left out."""
    role = _role(
        "  model: m\n"
        "  tools:\n"
        "    mcp: [{name: fs, url: 'http://fs/'}, {name: shell, url: 'http://sh/'}, {name: kb, url: 'http://kb/'}]\n"
        "    webhooks: [{name: ring, url: 'http://r/'}, {name: page, url: 'http://p/'}]\n"
        "  guardrails: {tools: {allow: [fs/read_*, 'kb/*'], deny: ['*/drop', page]}}\n"
    )
    assert [(server.name, server.allow, server.deny) for server in role.mcp_servers] == [
        ("fs", ("read_*",), ("drop",)),
        ("kb", (), ("drop",)),
    ]
    assert [tool.name for tool in role.webhook_tools] == ["ring"]
    assert role.config.tools == ("fs__read_*", "kb__*")


def test_patterns_of_tools_take_no_time() -> None:
    """As a regular expression, this one would be tried for longer than anybody waits."""
    server = "a" * 200
    role = _role(
        f"  model: m\n  tools: {{mcp: [{{name: {server}, url: 'http://s/'}}]}}\n"
        f"  guardrails: {{tools: {{deny: ['{'*a' * 60}b/x', 'a*a*/y', '*b*/z', 'a*{server}/w']}}}}\n"
    )
    assert role.mcp_servers[0].deny == ("y",)


def test_what_is_denied_is_not_allowed_by_the_other_list() -> None:
    """`deny` comes first: a tool that both lists name is not offered, and a server with nothing left is left out."""
    role = _role(
        "  model: m\n"
        "  tools:\n"
        "    mcp: [{name: fs, url: 'http://fs/'}, {name: sh, url: 'http://sh/'}, {name: kb, url: 'http://kb/'}]\n"
        "    webhooks: [{name: page_all, url: 'http://p/'}]\n"
        "  guardrails: {tools: {allow: [fs/read, fs/rm, sh/run, 'kb/*'], deny: [fs/rm, sh/run, 'kb/*', 'page_*']}}\n"
    )
    assert [(server.name, server.allow, server.deny) for server in role.mcp_servers] == [("fs", ("read",), ("rm",))]
    assert role.webhook_tools == ()


def test_secrets_of_tools_become_names_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values are in the bundle's environment; the plan has the names alone."""
    monkeypatch.setenv("SHOAL_SECRETS_DIR", "/run/secrets")
    secret = "kind: Secret\nmetadata: {name: kb-token}\nstringData: {token: s3cr3t-value}\n"
    text = (
        document(
            "SwarmAgent",
            "  model: m\n"
            "  tools:\n"
            "    mcp:\n"
            "      - {name: kb, url: 'https://kb/', auth: {bearer: {secretKeyRef: {name: kb-token, key: token}}}}\n"
            "      - {name: old, url: 'https://o/', auth: {tokenSecretRef: {name: kb-token, key: token}}}\n"
            "      - {name: tls, url: 'https://t/', auth: {mtls: {secretRef: {name: certs}}}}\n"
            "      - {name: own, url: 'https://w/', headers: [{name: X-Of, value: '1'}]}\n"
            "    webhooks:\n"
            "      - name: ring\n"
            "        url: https://r/\n"
            "        headers: [{name: X-Key, secretKeyRef: {name: kb-token, key: token}}, {name: X-Of, value: me}]\n"
            "      - {name: Own, url: 'https://r/', headers: [{name: X-Of, value: '2'}]}\n",
        )
        + "---\n"
        + secret
    )
    found = bundle(text, tmp_path)
    [role] = found.plan("x").team.roles
    kb, old, tls, own = role.mcp_servers
    assert (kb.auth_type, kb.token_env_var, old.token_env_var) == ("bearer", "KB_TOKEN_TOKEN", "KB_TOKEN_TOKEN")
    assert (tls.auth_type, tls.cert_file, tls.key_file) == (
        "mtls",
        "/run/secrets/certs/tls.crt",
        "/run/secrets/certs/tls.key",
    )
    ring, other = role.webhook_tools
    assert ring.headers_env == {"X-Key": "KB_TOKEN_TOKEN", "X-Of": "RING_X_OF"}
    assert (own.headers_env, other.headers_env) == ({"X-Of": "OWN_X_OF"}, {"X-Of": "OWN_X_OF_2"})
    assert found.env == {"KB_TOKEN_TOKEN": "s3cr3t-value", "RING_X_OF": "me", "OWN_X_OF": "1", "OWN_X_OF_2": "2"}
    assert any("workers of a fleet take it from the environment variable RING_X_OF" in str(f) for f in found.findings)


def test_a_registry_binds_capabilities_to_tool_servers() -> None:
    """Files to share name what they need; the deployment says where it is."""
    registry = document("SwarmRegistry", "  mcpBindings: [{capabilityId: search, url: 'http://search/'}]\n", name="r")
    role = _role("  model: m\n  tools: {mcp: [{name: kb, capabilityRef: search}]}\n", registry)
    assert role.mcp_servers[0].url == "http://search/"
    text, [at] = marks(document("SwarmAgent", "  model: m\n  tools: {mcp: [{name: kb, capabilityRef: «search}]}\n"))
    assert places(text) == [
        (
            f"{at}: no registry of the file binds capability 'search' to an MCP server: add it to its mcpBindings, "
            "or give the server a url"
        )
    ]


def test_an_agent_as_a_tool_server_is_left_out_with_a_note() -> None:
    """The agent is read all the same, as kubeswarm's own examples have one."""
    text = document(
        "SwarmAgent", "  model: m\n  tools: {mcp: [{name: db, swarmAgentRef: other}, {name: k, url: 'http://k/'}]}\n"
    )
    found = bundle(text)
    [role] = found.plan("x").team.roles
    assert [server.name for server in role.mcp_servers] == ["k"]
    assert any("agents call each other in teams (canDelegate)" in str(each) for each in found.findings)


def test_a_memory_is_found_by_its_name() -> None:
    """With the settings of the loop that uses it."""
    memory = document(
        "SwarmMemory",
        "  backend: vector-store\n"
        "  vectorStore: {provider: qdrant, endpoint: 'http://q:6333', ttlSeconds: 60, secretRef: {name: q}}\n"
        "  embedding: {model: text-embedding-3-small, provider: auto, dimensions: 512}\n",
        name="m",
    )
    role = _role(
        "  model: m\n  runtime: {loop: {memory: {ref: {name: m}, topK: 5, minSimilarity: 0.5, store: false}}}\n", memory
    )
    assert role.memory == MemorySpec(
        name="m",
        backend="vector-store",
        provider="qdrant",
        endpoint="http://q:6333",
        collection="agent-memories",
        ttl_s=60,
        url_env="Q_VECTOR_STORE_API_KEY",
        embed_model="text-embedding-3-small",
        embed_dimensions=512,
        top_k=5,
        min_similarity=0.5,
        keeps=False,
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("  backend: in-context\n  maxEntries: 9\n", MemorySpec(name="m", max_entries=9)),
        (
            "  backend: redis\n  redis: {secretRef: {name: r}, maxEntries: 3}\n",
            MemorySpec(name="m", backend="redis", ttl_s=3600, max_entries=3, url_env="R_REDIS_URL"),
        ),
        ("  backend: redis\n", MemorySpec(name="m", backend="redis", ttl_s=3600)),
        (
            "  backend: vector-store\n",
            MemorySpec(
                name="m",
                backend="vector-store",
                provider="embedded",
                collection="agent-memories",
                min_similarity=0.3,
            ),
        ),
    ],
)
def test_the_other_memories(spec: str, expected: MemorySpec) -> None:
    """Without a Secret, the fleet's own store is used."""
    assert (
        _role("  model: m\n  memoryRef: m\n", document("ArkMemory", spec, name="m"), kind="ArkAgent").memory == expected
    )


def test_a_vector_store_that_nobody_speaks_to_is_a_warning() -> None:
    """The fleet's own takes its place."""
    memory = document(
        "ArkMemory", "  backend: vector-store\n  vectorStore: {provider: weaviate, endpoint: 'http://w'}\n"
    )
    text = memory + "---\n" + document("ArkAgent", "  model: m\n  memoryRef: x\n", name="a")
    assert places(text, "warning")[0].startswith("6:27: weaviate is not spoken to from here")
    memory_spec = bundle(text).plan("a").team.roles[0].memory
    assert memory_spec is not None
    assert (memory_spec.provider, memory_spec.endpoint) == ("embedded", "")


def test_an_agent_without_a_model_uses_the_workers() -> None:
    """It is noted, for it is a mistake on Kubernetes."""
    text = document("ArkAgent", "  systemPrompt: p\n")
    assert [each.message for each in findings(text)] == ["ArkAgent 'x' has no model: the worker's own is used"]
    assert bundle(text).plan("x").team.roles[0].config.model == ""


def test_a_role_may_be_an_agent_of_the_fleet() -> None:
    """`agent` names one; the file's own of that name comes first."""
    text = team(
        "  entry: r\n  roles: [{name: r, agent: support, canDelegate: [s]}, {name: s, agent: mine}]\n",
        document("SwarmAgent", "  model: m\n", name="mine"),
    )
    first, second = bundle(text).plan("t").team.roles
    assert (first.agent, first.can_delegate) == ("support", ("s",))
    assert (second.agent, second.config.model) == ("", "m")
