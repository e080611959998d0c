"""The optional build whose hot modules are compiled: `make test` runs these, and others, in a copy that is compiled."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
from compiling import digest, missing

from worker.build_info import build, compiled_modules

REPOSITORY = Path(__file__).parents[2]
TOOLS = REPOSITORY / ".build"
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
HOOK: dict[str, Any] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
LISTED = sorted(module.removesuffix(".py").replace("/", ".") for module in HOOK["modules"])
EXPECTED = os.environ.get("SHOAL_TEST_BUILD", "")
compiled_only = pytest.mark.skipif(EXPECTED != "compiled", reason="make test runs it on the compiled copy")


def test_an_ordinary_install_needs_no_compiler() -> None:
    """The hook is off by itself, and what it needs is not asked for by those who do without."""
    assert HOOK["enable-by-default"] is False
    assert PROJECT["build-system"]["requires"] == ["hatchling>=1.25"]
    assert not [
        name for name in PROJECT["project"]["dependencies"] if name.lower().startswith(("cython", "setuptools"))
    ]


@compiled_only
def test_what_is_listed_runs_compiled() -> None:
    """Not only is there an extension module: it is what an import gets, from this very copy."""
    assert list(compiled_modules()) == LISTED
    for name in LISTED:
        file = importlib.import_module(name).__file__ or ""
        assert file.endswith(tuple(EXTENSION_SUFFIXES))
        assert Path(file).is_relative_to(REPOSITORY)


@compiled_only
@pytest.mark.parametrize("here", [True, False])
def test_child_processes_run_compiled(tmp_path: Path, *, here: bool) -> None:
    """Wherever a test starts `shoal`, it runs what is tested here."""
    said = subprocess.run(
        [sys.executable, "-m", "worker.cli", "--version"],
        cwd=REPOSITORY if here else tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert said.rstrip().endswith("(compiled)")


def test_the_version_says_which_build_it_is() -> None:
    """One word, so that a bug report has it."""
    assert build() == ("compiled" if compiled_modules() else "interpreted")
    if EXPECTED:
        assert build() == EXPECTED


def test_extension_modules_of_another_python_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would not import them either."""
    (tmp_path / "worker").mkdir()
    for name in ("a.cpython-26-nowhere.so", f"b{EXTENSION_SUFFIXES[0]}", "c.py"):
        (tmp_path / "worker" / name).touch()
    monkeypatch.setattr("worker.build_info._ROOT", tmp_path)
    assert compiled_modules.__wrapped__() == ("worker.b",)


PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["small"]
[tool.hatch.build.targets.wheel.hooks.custom]
enable-by-default = false
path = ".build/hook.py"
modules = ["small/shapes.py"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project that is built with this one's hook."""
    folder = tmp_path / "project"
    (folder / "small").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "small" / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("shapes.py"), folder / "small")
    shutil.copytree(TOOLS, folder / ".build", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def built(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build its wheel into `dist`."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def ran(folder: Path) -> list[str]:
    """What the module says of itself when it is tried out, in a process that finds it in this folder."""
    tried = subprocess.run(
        [sys.executable, "-c", "from small import shapes; print(shapes.__file__); shapes.try_out()"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return tried.stdout.splitlines()


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_compiled_wheel_behaves_as_its_sources(project: Path, tmp_path: Path) -> None:
    """Errors with their causes and lines, cancellation, generators closed early, copies, pickles, weak references,
    properties, name mangling, data classes, protocols: one program, run in both builds, says the same."""
    # when
    ended = built(project, HATCH_BUILD_HOOK_ENABLE_CUSTOM="1")
    # then
    assert ended.returncode == 0, ended.stderr
    (wheel,) = (project / "dist").glob("*.whl")
    assert sysconfig.get_platform().replace("-", "_").replace(".", "_") in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        assert "small/shapes.py" in archive.namelist()
    compiled_file, *compiled_said = ran(tmp_path / "installed")
    source_file, *source_said = ran(project)
    assert compiled_file.endswith(EXTENSION_SUFFIXES[0])
    assert source_file.endswith(".py")
    assert compiled_said == source_said
    assert len(source_said) > 10
    assert not [path for path in (project / "small").iterdir() if path.suffix not in {".py", ""}]


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_module_that_does_not_compile_ends_the_build(project: Path) -> None:
    """With the module's name, what the compiler says, and how to do without."""
    (project / "small" / "shapes.py").write_text("def f():\n    return undefined_name_of_nobody\nreturn 3\n")
    ended = built(project, HATCH_BUILD_HOOK_ENABLE_CUSTOM="1")
    assert ended.returncode
    assert "small/shapes.py does not compile" in ended.stderr
    assert "unset" in ended.stderr


def test_without_a_compiler_the_build_says_so(project: Path) -> None:
    """Which one is missing, how to get it, and that it can be left out."""
    ended = built(project, HATCH_BUILD_HOOK_ENABLE_CUSTOM="1", CC="no-such-compiler -x")
    assert ended.returncode
    assert "there is no no-such-compiler (Debian: apt-get install gcc" in ended.stderr
    assert "Shoal is complete without" in ended.stderr


def test_without_being_asked_nothing_is_compiled(project: Path) -> None:
    """The wheel of everybody else is of pure Python."""
    ended = built(project, CC="no-such-compiler")
    assert ended.returncode == 0, ended.stderr
    assert [wheel.name for wheel in (project / "dist").iterdir()] == ["small-1-py2.py3-none-any.whl"]


def test_an_editable_install_is_left_as_it_is() -> None:
    """Its sources are edited: what is compiled would not follow."""
    pytest.importorskip("hatchling")
    from hook import CompiledModules

    build_data: dict[str, Any] = {}
    hook = CompiledModules(str(REPOSITORY), HOOK, None, None, "", "wheel")  # type: ignore[arg-type]  # not looked at
    hook.initialize("editable", build_data)
    hook.finalize("editable", build_data, "")
    assert build_data == {}


def test_what_a_compiled_form_depends_on_is_in_its_digest(tmp_path: Path) -> None:
    """A changed source is compiled again, an unchanged one is not."""
    module = tmp_path / "m.py"
    module.write_text("x = 1\n")
    before = digest(tmp_path, "m.py", level=2)
    assert digest(tmp_path, "m.py", level=2) == before
    assert digest(tmp_path, "m.py", level=0) != before
    module.write_text("x = 2\n")
    assert digest(tmp_path, "m.py", level=2) != before
