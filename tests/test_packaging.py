"""What a user gets: the built archives, the entry points, the public names, the image and the Compose file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import Settings

REPOSITORY = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES: tuple[str, ...] = tuple(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
PUBLIC = ("queue_backends", "queue_backends.embedded", "providers")
SUPPORT = {
    ".build",
    ".ci",
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "compose.yaml",
    "docs",
    "examples",
    "pyproject.toml",
    "tests",
}


def shipped_files() -> set[str]:
    """All that the packages hold in the source tree, as paths in an archive."""
    return {
        file.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built by the build backend itself, without a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
        timeout=100,
    )
    return folder


def test_the_wheel_holds_every_file_of_the_packages(archives: Path) -> None:
    """Scripts for the server and the type marker are files too: a wheel without them fails at its first task."""
    (wheel,) = archives.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name for name in names if not name.split("/")[0].endswith(".dist-info")}

    assert packaged == shipped_files()
    assert any(name.endswith(".lua") for name in packaged)
    assert {f"{package}/py.typed" for package in PACKAGES} <= packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_archive_holds_what_a_build_needs(archives: Path) -> None:
    """The packages, the tests, the licence and the change log."""
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    assert shipped_files() <= names
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "tests/test_packaging.py",
        ".build/hook.py",
    } <= names


def entry_points() -> list[str]:
    """Every `module:object` that the project promises."""
    groups = PROJECT["project"]["entry-points"].values()
    return sorted({*PROJECT["project"]["scripts"].values(), *(target for group in groups for target in group.values())})


@pytest.mark.parametrize("target", entry_points())
def test_every_entry_point_loads(target: str) -> None:
    """A typing error here would show only when somebody uses that backend or provider."""
    module, _, name = target.partition(":")

    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_sorted_and_complete(name: str) -> None:
    """`__all__` is what can be relied on: every name that the package re-exports, and no other."""
    package = importlib.import_module(name)
    exported = {
        key
        for key, value in vars(package).items()
        if not key.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(package.__all__) == exported
    assert list(package.__all__) == sorted(package.__all__, key=_as_ruff_sorts)


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by name."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def test_extras_name_only_what_exists() -> None:
    """An extra that includes another by name includes one that there is."""
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    named = {
        included
        for requirements in extras.values()
        for requirement in requirements
        if (found := re.fullmatch(r"shoal\[(.+)\]", requirement))
        for included in found[1].split(",")
    }

    assert named
    assert named <= set(extras)


def test_the_top_level_holds_only_what_belongs_there() -> None:
    """A new file at the top is a decision: it is added here, or it has a better place."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached"], cwd=REPOSITORY, capture_output=True, check=False, text=True
    )
    if tracked.returncode or not tracked.stdout:
        pytest.skip("not a git checkout")

    found = {path.partition("/")[0] for path in tracked.stdout.splitlines()}

    assert found <= SUPPORT | set(PACKAGES)


@pytest.mark.parametrize("name", ["CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "compose.yaml"])
def test_what_people_look_for_is_there(name: str) -> None:
    """The files that everybody expects at the top."""
    assert (REPOSITORY / name).stat().st_size


def test_the_licence_is_the_declared_one() -> None:
    """The full text of the licence that the project's metadata names."""
    text = (REPOSITORY / "LICENSE").read_text()

    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def compose() -> dict[str, Any]:
    """The Compose file as it stands, variables not yet filled in."""
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return loaded


def test_compose_workers_can_be_scaled() -> None:
    """Nothing that only one container could have: no fixed name, no fixed port of the host."""
    worker = compose()["services"]["worker"]

    assert worker["deploy"]["replicas"] == 2
    assert not {"container_name", "ports", "hostname"} & set(worker)
    assert worker["depends_on"]["redis"]["condition"] == "service_healthy"
    assert compose()["services"]["redis"]["healthcheck"]["test"][-1] == "ping"


def test_compose_works_without_any_variable_set() -> None:
    """Each variable has a default, so that a bare `docker compose up` brings up workers that answer."""
    text = (REPOSITORY / "compose.yaml").read_text()
    used = re.findall(r"\$\{([^}]+)\}", text)

    assert used
    assert [name for name in used if ":-" not in name] == []
    assert "AGENT_MODEL:-mock" in used


def test_compose_waits_longer_than_the_workers_grace() -> None:
    """Killed before the end of its grace period, a worker could not hand back what it holds."""
    worker = compose()["services"]["worker"]
    grace_s = float(worker["environment"]["SHOAL_GRACE_SECONDS"].partition(":-")[2].rstrip("}"))

    assert grace_s == Settings().grace_s
    assert float(worker["stop_grace_period"].removesuffix("s")) > grace_s


def image_instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line and not line.startswith("#")]


def test_the_image_runs_a_worker_without_privileges() -> None:
    """Not as root, `shoal worker` by default, ended by the signal that drains, its health watched."""
    final = dict(image_instructions()[[name for name, _ in image_instructions()].index("USER") - 1 :])

    assert final["USER"].partition(":")[0] not in {"root", "0"}
    assert (final["ENTRYPOINT"], final["CMD"]) == ('["shoal"]', '["worker"]')
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert "/healthz" in final["HEALTHCHECK"]


def test_the_image_is_built_from_files_that_are_sent() -> None:
    """The build needs every package, the project file and what that names."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert sent == {
        *PACKAGES,
        ".build",
        "pyproject.toml",
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
    }


def test_make_says_what_it_can_do() -> None:
    """`make` alone lists every target."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory"]
    made = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, check=True, text=True, timeout=30
    )
    said = made.stdout

    assert [line.split()[:2] for line in said.splitlines()] == [
        ["make", target] for target in ("help", "demo", "test", "lint", "bench", "soak", "clean")
    ]


def test_make_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    """One line that says what is needed and how to name it, instead of a failing installation."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    (tmp_path / "pyproject.toml").write_text("")

    ended = subprocess.run(
        ["make", "demo", "PYTHON=false"], cwd=tmp_path, capture_output=True, check=False, text=True, timeout=30
    )

    assert ended.returncode
    assert "No Python >= 3.11" in ended.stderr
    assert "make PYTHON=" in ended.stderr
