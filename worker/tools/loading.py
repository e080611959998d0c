"""Finds Python tools by name: `package.module:name`, `package.module`, or the path of a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from worker.errors import ToolSetupFailed
from worker.tools.python import PythonTool, is_tool, python_tool


def load_tools(reference: str) -> tuple[PythonTool, ...]:
    """The tools that a reference names.

    `package.module:name` is a function, or a list of functions; without `:name`, and for `path/to/file.py`, all
    functions that were defined there and marked by `@tool`, in the order of definition. Modules are looked for in the
    working directory too. Raises `ToolSetupFailed`; importing runs the module's code.
    """
    place, separator, name = reference.rpartition(":")
    if not separator:
        place, name = reference, ""
    module = _load_file(Path(place), reference) if place.endswith(".py") else _load_module(place, reference)
    return _named(module, name, reference) if name else _marked(module, reference)


def _load_module(name: str, reference: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ToolSetupFailed(f"tools {reference!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)


def _load_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise ToolSetupFailed(f"tools {reference!r}: there is no file {str(path)!r}")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"shoal_tools_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ToolSetupFailed(f"tools {reference!r}: {str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look their module up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ToolSetupFailed(f"tools {reference!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _marked(module: ModuleType, reference: str) -> tuple[PythonTool, ...]:
    found = [value for value in vars(module).values() if is_tool(value) and value.__module__ == module.__name__]
    if not found:
        raise ToolSetupFailed(f"tools {reference!r}: no function there is marked by @tool")
    return tuple(python_tool(function) for function in dict.fromkeys(found))


def _named(module: ModuleType, name: str, reference: str) -> tuple[PythonTool, ...]:
    value = getattr(module, name, None)
    if value is None:
        raise ToolSetupFailed(f"tools {reference!r}: there is no {name!r} in it")
    values: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    return tuple(_as_tool(item, reference) for item in values)


def _as_tool(value: Any, reference: str) -> PythonTool:
    if isinstance(value, PythonTool):
        return value
    if not callable(value):
        raise ToolSetupFailed(f"tools {reference!r}: {value!r} is neither a function nor a list of functions")
    return python_tool(value)
