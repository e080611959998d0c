"""A copy of the three packages with the hot modules compiled, for tests and benchmarks.

python .build/compiled_copy.py .venv/compiled              make it, or bring it up to date
python .build/compiled_copy.py .venv/compiled --also tests with folders and files beside the packages, as they are
python .build/compiled_copy.py --can                       exit code 1, and the reason, if this machine cannot compile

A module is compiled again only if it has changed. Put the folder first on the path to use it.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compiling import CannotCompile, compiled, digest, extension_of, missing

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = ".cache"
LEFT_OUT = frozenset({"__pycache__", "node_modules"})


def configured() -> tuple[list[str], list[str]]:
    """The packages of the wheel, and the modules to compile, as pyproject.toml has them."""
    wheel: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wheel = wheel["tool"]["hatch"]["build"]["targets"]["wheel"]
    return wheel["packages"], wheel["hooks"]["custom"]["modules"]


def bring_up_to_date(folder: Path, *, also: Sequence[str], level: int) -> int:
    """Make the folder what the sources say. Returns how many modules had to be compiled. Raises `CannotCompile`."""
    packages, modules = configured()
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / CACHE
    cache.mkdir(exist_ok=True)
    kept = {module: cache / f"{digest(REPOSITORY, module, level=level)}.so" for module in modules}
    changed = [module for module in modules if not kept[module].exists()]
    with compiled(REPOSITORY, changed, level=level) as made:
        for module, file in made.items():
            _replace(file, kept[module])
    wanted = {name: REPOSITORY / name for name in _files([*packages, *also])}
    wanted |= {extension_of(module): file for module, file in kept.items()}
    _mirror(folder, wanted)
    for stale in set(cache.iterdir()) - set(kept.values()):
        stale.unlink()
    return len(changed)


def _files(names: Sequence[str]) -> Iterator[str]:
    """Every file of these folders, and these files themselves, relative to the repository."""
    for name in names:
        path = REPOSITORY / name
        for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
            relative = file.relative_to(REPOSITORY)
            if not LEFT_OUT.intersection(relative.parts) and file.is_file():
                yield relative.as_posix()


def _mirror(folder: Path, wanted: dict[str, Path]) -> None:
    """Let the folder hold these files and no others; what Python itself keeps beside a module may stay."""
    for name, source in wanted.items():
        copy = folder / name
        if not copy.exists() or not filecmp.cmp(source, copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            _replace(source, copy)
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        if not file.is_file() or relative.parts[0] == CACHE or LEFT_OUT.intersection(relative.parts):
            continue
        if relative.as_posix() not in wanted:
            file.unlink()


def _replace(source: Path, target: Path) -> None:
    """Never write into a file that a running process may have loaded: put another one in its place."""
    beside = target.with_name(target.name + ".new")
    shutil.copy2(source, beside)
    beside.replace(target)


def main() -> int:
    """What the command line asks for. 1 if it cannot be done here, with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="compiled_copy.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where to make the copy")
    parser.add_argument("--also", action="append", default=[], help="copy this folder or file of the checkout too")
    parser.add_argument("--level", type=int, default=2, help="the C compiler's -O (2 as in wheels)")
    parser.add_argument("--can", action="store_true", help="say whether this machine can compile, and do nothing")
    given = parser.parse_args()
    if given.can:
        print(missing(), file=sys.stderr)
        return 1 if missing() else 0
    if given.folder is None:
        parser.error("where? python .build/compiled_copy.py FOLDER")
    try:
        count = bring_up_to_date(given.folder.resolve(), also=given.also, level=given.level)
    except CannotCompile as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.folder}: {count} modules compiled, {len(configured()[1]) - count} were up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
