"""Modules made into extension modules, in a temporary folder, several at once. The sources are left as they are."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath

from slot_declarations import declarations

SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")
TOOL = Path(__file__).with_name("compile_module.py")
LAST_LINES = 12
WITHIN_S = 600.0
WITHOUT = "Shoal is complete without: leave HATCH_BUILD_HOOKS_ENABLE and HATCH_BUILD_HOOK_ENABLE_CUSTOM unset."


class CannotCompile(Exception):
    """What is missing, or which module failed and how."""


def missing() -> str:
    """What this machine lacks to compile anything; empty if nothing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"no C compiler: there is no {compiler} (Debian: apt-get install gcc; macOS: xcode-select --install)"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return f"no Python headers: there is no {header} (Debian: apt-get install python3-dev)"
    for package in ("Cython", "setuptools"):
        if importlib.util.find_spec(package) is None:
            return f"no {package}: pip install cython setuptools"
    return ""


def extension_of(module: str) -> str:
    """Where the compiled form of `worker/task_run.py` belongs: beside it."""
    return str(PurePosixPath(module).with_suffix("")) + SUFFIX


@contextmanager
def compiled(root: Path, modules: Sequence[str], *, level: int) -> Iterator[dict[str, Path]]:
    """Module -> its extension module, in a folder that is removed afterwards. Raises `CannotCompile`."""
    if modules and (lacking := missing()):
        raise CannotCompile(f"{lacking}. {WITHOUT}")
    with tempfile.TemporaryDirectory(prefix="shoal-compiled-") as folder:
        work = Path(folder)
        for module in modules:
            _lay_out(root, module, work)
        largest_first = sorted(modules, key=lambda module: -(root / module).stat().st_size)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            found = dict(zip(largest_first, pool.map(lambda m: _compile(work, m, level), largest_first), strict=True))
        yield {module: found[module] for module in modules}


def digest(root: Path, module: str, *, level: int) -> str:
    """Changes whenever the compiled form may: with the source, the tools that make it, the interpreter it is for."""
    source = (root / module).read_text()
    tools = [metadata.version("cython"), TOOL.read_text(), declarations(source).pxd()]
    return hashlib.sha256("\0".join([SUFFIX, str(level), module, source, *tools]).encode()).hexdigest()[:32]


def _lay_out(root: Path, module: str, work: Path) -> None:
    """Copy a module, with the declarations of its classes and so much of its packages that Cython knows its name."""
    source = root / module
    if source.suffix != ".py" or not source.is_file():
        raise CannotCompile(f"{module}: there is no such module in {root}: see `modules` in pyproject.toml")
    copy = work / module
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, copy)
    for package in PurePosixPath(module).parents:
        if package.name:
            (work / package / "__init__.py").touch()
    if text := declarations(source.read_text()).pxd():
        copy.with_suffix(".pxd").write_text(text)


def _compile(work: Path, module: str, level: int) -> Path:
    command = [sys.executable, str(TOOL), module, str(level)]
    ended = subprocess.run(
        command, cwd=work, env=_environment(), capture_output=True, check=False, text=True, timeout=WITHIN_S
    )
    made = work / extension_of(module)
    if ended.returncode or not made.exists():
        said = "\n".join(f"{ended.stdout}\n{ended.stderr}".strip().splitlines()[-LAST_LINES:])
        raise CannotCompile(f"{module} does not compile:\n{said}\n{WITHOUT}")
    return made


def _environment() -> Mapping[str, str]:
    """pip hands the tools that it has installed for a build to its own process by way of `sys.path`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
