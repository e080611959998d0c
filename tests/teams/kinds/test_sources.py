"""Values of Secrets, ConfigMaps, mounted folders, `.env` and the environment: whence they come, where they go."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from queue_backends.messages import encode_json
from tests.teams.kinds.files import bundle, document
from worker.teams.errors import BadTeamFile
from worker.teams.kinds.sources import read_env_file, secret_variable

SECRET = "topsecret-4711"
DOCUMENTS = (
    "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ntype: Opaque\n"
    f"data: {{ANTHROPIC_API_KEY: {base64.b64encode(SECRET.encode()).decode()}, not-a-name: eA==}}\n"
    "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {REGION: eu, PORT: '1'}\n---\n"
)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "REGION", "PORT", "SHOAL_SECRETS_DIR", "TOKEN", "A", "B"):
        monkeypatch.delenv(name, raising=False)


def _agent(spec: str) -> str:
    return DOCUMENTS + document("SwarmAgent", "  model: m\n" + spec, name="a")


def test_whole_objects_become_variables(tmp_path: Path) -> None:
    """With their prefix; what is no name of a variable is left out."""
    text = _agent("  envFrom: [{secretRef: {name: keys}}, {prefix: APP_, configMapRef: {name: conf}}]\n")
    assert bundle(text, tmp_path).env == {"ANTHROPIC_API_KEY": SECRET, "APP_REGION": "eu", "APP_PORT": "1"}


def test_single_values(tmp_path: Path) -> None:
    """Literal, from a key, and a key by its own name."""
    text = _agent(
        "  env:\n"
        "    - {name: A, value: 7}\n"
        "    - {name: B, valueFrom: {configMapKeyRef: {name: conf, key: REGION}}}\n"
        "  apiKeyRef: {name: keys, key: ANTHROPIC_API_KEY}\n"
    )
    found = bundle(text, tmp_path)
    assert found.env == {"A": "7", "B": "eu", "ANTHROPIC_API_KEY": SECRET}
    assert found.plan("a").team.roles[0].config.api_key_env == "ANTHROPIC_API_KEY"


def test_mounted_secrets_come_before_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployment's own value counts."""
    folder = tmp_path / "secrets" / "keys"
    folder.mkdir(parents=True)
    (folder / "ANTHROPIC_API_KEY").write_text("mounted\n")
    monkeypatch.setenv("SHOAL_SECRETS_DIR", str(tmp_path / "secrets"))
    assert bundle(_agent("  envFrom: [{secretRef: {name: keys}}]\n"), tmp_path).env == {"ANTHROPIC_API_KEY": "mounted"}


def test_no_secret_is_read_from_outside_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a name with dots or slashes."""
    (tmp_path / "TOKEN").write_text("outside")
    (tmp_path / "secrets").mkdir()
    monkeypatch.setenv("SHOAL_SECRETS_DIR", str(tmp_path / "secrets"))
    for name in ("..", "../", ".", "x/../.."):
        text = _agent(f"  envFrom: [{{secretRef: {{name: '{name}'}}}}]\n")
        assert bundle(text, tmp_path).env == {}


def test_the_environment_comes_first_and_dot_env_fills_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell sets is never changed."""
    (tmp_path / ".env").write_text("export TOKEN='a b'  \nA=1 # one\n# B=2\nbroken\nPORT=\"x\"\n")
    monkeypatch.setenv("A", "shell")
    assert bundle(_agent(""), tmp_path).env == {"TOKEN": "a b", "PORT": "x"}
    monkeypatch.setenv("ANTHROPIC_API_KEY", "shell")
    assert "ANTHROPIC_API_KEY" not in bundle(_agent("  envFrom: [{secretRef: {name: keys}}]\n"), tmp_path).env


def test_dot_env_comes_before_what_the_file_holds(tmp_path: Path) -> None:
    """Secrets in files that are shared are often mere examples: one's own `.env` counts, without a word."""
    (tmp_path / ".env").write_text("ANTHROPIC_API_KEY=mine\n")
    found = bundle(_agent("  envFrom: [{secretRef: {name: keys}}]\n"), tmp_path)
    assert (found.env, found.findings) == ({"ANTHROPIC_API_KEY": "mine"}, ())


def test_no_secret_is_in_a_plan_or_a_message(tmp_path: Path) -> None:
    """Wherever a file uses one: the plan, the findings, the errors and the bundle's own text are clean of it."""
    text = _agent(
        "  envFrom: [{secretRef: {name: keys}}]\n"
        "  apiKeyRef: {name: keys, key: ANTHROPIC_API_KEY}\n"
        "  tools:\n"
        "    mcp:\n"
        "      - {name: kb, url: 'http://kb/', auth: {bearer: {secretKeyRef: {name: keys, key: ANTHROPIC_API_KEY}}}}\n"
    )
    found = bundle(text, tmp_path)
    assert SECRET in found.env.values()
    everything = encode_json(found.plan("a")).decode() + repr(found) + str(found) + "".join(map(str, found.findings))
    assert SECRET not in everything
    broken = f"kind: Secret\nmetadata: {{name: s}}\nstringData: {{K: [{SECRET}]}}\ndata: {{L: {SECRET}}}\n---\n" + text
    with pytest.raises(BadTeamFile) as told:
        bundle(broken, tmp_path)
    assert SECRET not in str(told.value)


def test_what_cannot_be_found_is_noted_once(tmp_path: Path) -> None:
    """Often the Secret is in a file of its own: its values are then the environment's."""
    spec = "  envFrom: [{secretRef: {name: far}}]\n"
    text = document("SwarmAgent", "  model: m\n" + spec, name="a") + "---\n"
    text += document("SwarmAgent", "  model: m\n" + spec, name="b")
    assert [each.message for each in bundle(text, tmp_path).findings] == [
        "Secret 'far' is not in this file: its values are taken from the environment, or from `.env` beside the file"
    ]
    optional = text.replace("name: far", "name: far, optional: true")
    assert bundle(optional, tmp_path).findings == ()


def test_two_values_of_one_variable_are_noted(tmp_path: Path) -> None:
    """A run has one environment, other than pods."""
    text = document("SwarmAgent", "  model: m\n  env: [{name: A, value: '1'}]\n", name="a") + "---\n"
    text += document("SwarmAgent", "  model: m\n  env: [{name: A, value: '2'}]\n", name="b")
    found = bundle(text, tmp_path)
    assert found.env == {"A": "1"}
    assert "environment variable A has another value already" in found.findings[0].message


@pytest.mark.parametrize(
    ("name", "key", "variable"),
    [
        ("slack-alerts", "webhookUrl", "SLACK_ALERTS_WEBHOOKURL"),
        ("1st", "k.e", "SECRET_1ST_K_E"),
        ("a--b", "_c", "A_B_C"),
    ],
)
def test_each_key_of_a_secret_has_a_variable(name: str, key: str, variable: str) -> None:
    """One rule for all of them, that people can apply by hand."""
    assert secret_variable(name, key) == variable


def test_a_dot_env_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """It is a convenience: nothing stops for it."""
    assert read_env_file(tmp_path) == {}
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert read_env_file(tmp_path / ".env") == {}


def _of_files(path: str, script: str) -> str:
    prompt = f'{{systemPromptRef: {{fileRef: {{path: "{path}"}}}}, options: {{script: "{script}"}}}}'
    return f"kind: ArkAgent\napiVersion: arkonis.dev/v1\nmetadata: {{name: a}}\nspec: {prompt}\n"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../up.txt", "is outside of the file's folder: move it there"),
        ("/etc/passwd", "is outside of the file's folder: move it there"),
        ("round", "round"),
        ("a\\0b", "is no path"),
        ("none", "none"),
    ],
)
def test_files_that_cannot_be_read_are_errors(tmp_path: Path, name: str, problem: str) -> None:
    """Given paths out of the folder, links that go round and characters that no path has: an error for each, at its
    place, and nothing of what is there."""
    (tmp_path / "team").mkdir()
    (tmp_path / "up.txt").write_text("outside")
    (tmp_path / "team" / "round").symlink_to("round")
    with pytest.raises(BadTeamFile) as raised:
        bundle(_of_files(name, name), tmp_path / "team")
    prompt, script = str(raised.value).splitlines()
    assert problem in prompt
    assert problem in script


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: [", "said.txt:2:1: error: did not find expected node content"),
        (b"\xff", "it is no UTF-8 text (byte 0)"),
        (b"a: 1\n---\nb: 2\n", "it has to be one YAML document"),
        (b"#" * 300_000, "it is larger than 262144 bytes"),
        (b"a: &a " + b"x" * 100_000 + b"\nb: [" + b"*a, " * 5000 + b"]", "it is too large"),
    ],
)
def test_a_script_is_read_as_carefully_as_the_file(tmp_path: Path, content: bytes, problem: str) -> None:
    """It becomes a part of the plan: what grows by its aliases is refused there, too."""
    (tmp_path / "said.txt").write_bytes(content)
    (tmp_path / "prompt.txt").write_text("Hello.")
    with pytest.raises(BadTeamFile) as raised:
        bundle(_of_files("prompt.txt", "said.txt"), tmp_path)
    assert problem in str(raised.value)


def test_the_secret_of_a_certificate_is_a_name() -> None:
    """It is a folder among the mounted secrets, and nowhere else."""
    server = "{name: m, url: 'https://h/', auth: {mtls: {secretRef: {name: ../../etc}}}}"
    text = f"kind: ArkAgent\napiVersion: arkonis.dev/v1\nmetadata: {{name: a}}\nspec: {{mcpServers: [{server}]}}\n"
    with pytest.raises(BadTeamFile, match=r"'\.\./\.\./etc' is no name of a Secret"):
        bundle(text)
