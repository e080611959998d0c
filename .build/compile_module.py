"""Compile one module where it lies: `python compile_module.py worker/task_run.py 2` (the C compiler's `-O`).

A process of its own per module, so that several are compiled at once and what a compiler says belongs to one of them.
The folder must be the one that holds the packages: file names in tracebacks are the ones given here, and Python finds
the source by them.
"""

from __future__ import annotations

import sys
from pathlib import PurePosixPath

from Cython.Build import cythonize
from Cython.Compiler.Errors import CompileError
from setuptools import Extension, setup

DIRECTIVES = {
    "language_level": 3,
    # Annotations are for readers and mypy: a wrong one must not become a TypeError in one of two builds.
    "annotation_typing": False,
    "binding": True,
    # A variable that may be None would otherwise be taken for an object of a declared class, and read past its end.
    "infer_types": False,
    "nonecheck": True,
    "emit_code_comments": False,  # the source's lines, five times over
}


def compile_in_place(path: str, level: int) -> None:
    """Write the extension module beside the source. Raises `CompileError` for what Cython does not understand, and ends
    with a message of its own where the C compiler fails."""
    name = str(PurePosixPath(path).with_suffix("")).replace("/", ".")
    # No debugging information, which weighs as much again; no warnings: nobody reads the C.
    extension = Extension(name, [path], extra_compile_args=[f"-O{level}", "-g0", "-w"])
    modules = cythonize([extension], compiler_directives=DIRECTIVES, quiet=True)
    setup(name="compiled", packages=[], ext_modules=modules, script_args=["--quiet", "build_ext", "--inplace"])


if __name__ == "__main__":
    try:
        compile_in_place(sys.argv[1], int(sys.argv[2]))
    except CompileError:  # Cython has said which line it does not understand
        sys.exit(1)
