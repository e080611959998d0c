"""Types for the compiler, taken from what a module says anyway: `__slots__` are all attributes that an object can have.

Cython reads a `.pxd` beside a module. A class that is declared there becomes a C structure, whose attributes are found
by their offset. A class is declared only if nobody can tell the difference: what is rare or not understood stays as it
is, an ordinary class in a compiled module. The one difference that remains is that such a class, like any of C, cannot
be given other methods from outside.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

_SPECIAL_METHODS = frozenset(
    f"__{name}__"
    for name in (
        *("init", "repr", "str", "bool", "len", "hash", "contains", "getitem", "call", "iter", "next"),
        *("aiter", "anext", "await", "enter", "exit", "aenter", "aexit"),
    )
)
"""Those that mean the same in a class of C; `__eq__`, `__getattr__`, `__new__` and others have rules of their own."""

_DECORATORS = frozenset({"property", "staticmethod", "classmethod", "contextmanager", "asynccontextmanager"})
_WEAK_REFERENCES = "__weakref__"


class NotUnderstood(Exception):
    """Why a class stays as it is."""


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """What could be said of one module's classes."""

    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Declared class -> its own slots."""
    bases: dict[str, str] = field(default_factory=dict)
    """Declared class -> the declared class of the same module that it extends."""
    left: dict[str, str] = field(default_factory=dict)
    """Class with slots that stays as it is -> why."""

    def pxd(self) -> str:
        """The text of the `.pxd` file; empty if there is nothing to declare."""
        return "\n".join(line for name in self.fields for line in self._lines(name))

    def _lines(self, name: str) -> Iterator[str]:
        base = self.bases.get(name)
        yield f"cdef class {name}({base}):" if base else f"cdef class {name}:"
        if not self.fields[name]:
            yield "    pass"
        for slot in self.fields[name]:
            yield f"    cdef object {slot}" if slot == _WEAK_REFERENCES else f"    cdef public object {slot}"
        yield ""


def declarations(source: str) -> Declarations:
    """The classes of a module that can be declared. Raises `SyntaxError` for what is not Python."""
    module = ast.parse(source)
    found = Declarations()
    for node in module.body:
        if not isinstance(node, ast.ClassDef) or not _has_slots(node):
            continue
        try:
            base = _declared_base(node, found)
            slots = _Class(node, module, has_base=bool(base)).slots()
        except NotUnderstood as reason:
            found.left[node.name] = str(reason)
            continue
        found.fields[node.name] = slots
        if base:
            found.bases[node.name] = base
    return found


def _has_slots(node: ast.ClassDef) -> bool:
    return any("__slots__" in _targets(statement) for statement in node.body)


def _declared_base(node: ast.ClassDef, found: Declarations) -> str:
    """The name of the one declared class that it extends; empty if it extends nothing."""
    if node.decorator_list or node.keywords or getattr(node, "type_params", None):
        raise NotUnderstood("it has decorators, keywords or type parameters")
    if not node.bases:
        return ""
    base = node.bases[0]
    if len(node.bases) > 1 or not isinstance(base, ast.Name) or base.id not in found.fields:
        raise NotUnderstood("it extends something other than one declared class of this module")
    return base.id


class _Class:
    """One class with slots, while it is looked at."""

    def __init__(self, node: ast.ClassDef, module: ast.Module, *, has_base: bool) -> None:
        self._node = node
        self._module = module
        self._has_base = has_base
        self._methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]

    def slots(self) -> tuple[str, ...]:
        """Its slots. Raises `NotUnderstood` if it cannot be declared."""
        slots = self._written_slots()
        own = frozenset(slots) - {_WEAK_REFERENCES}
        self._check_body(own)
        for method in self._methods:
            _check_method(method)
        if len({method.name for method in self._methods} & own):
            raise NotUnderstood("a method has the name of a slot")
        self._check_names()
        self._check_filled(own)
        self._check_module(own)
        return slots

    def _written_slots(self) -> tuple[str, ...]:
        (statement,) = (item for item in self._node.body if "__slots__" in _targets(item))
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        try:
            written = ast.literal_eval(value) if value is not None else None
        except ValueError:
            written = None
        slots = (written,) if isinstance(written, str) else written
        if not isinstance(slots, tuple | list) or not all(isinstance(slot, str) for slot in slots):
            raise NotUnderstood("its slots are not written out as strings")
        if odd := [slot for slot in slots if slot.startswith("__") and slot != _WEAK_REFERENCES]:
            raise NotUnderstood(f"slot {odd[0]}")
        return tuple(slots)

    def _check_body(self, own: frozenset[str]) -> None:
        for item in self._node.body:
            targets = _targets(item)
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) or _is_docstring(item):
                continue
            if isinstance(item, ast.AnnAssign) and item.value is None and targets:
                continue
            if not targets or targets & own:
                raise NotUnderstood(f"line {item.lineno} is neither method nor constant")

    def _check_names(self) -> None:
        for node in ast.walk(self._node):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name.startswith("__") and not name.endswith("__"):
                raise NotUnderstood(f"{name} would be renamed")
            if name == "__class__":
                raise NotUnderstood("it uses __class__")

    def _check_filled(self, own: frozenset[str]) -> None:
        """An attribute that nobody has set is an error in Python, and None in C."""
        begin = next((method for method in self._methods if method.name == "__init__"), None)
        statements = begin.body if begin else []
        filled = {name for statement in statements for name in _attributes_set(statement)}
        if missing := sorted(own - filled):
            raise NotUnderstood(f"__init__ does not always set {missing[0]}")
        if self._has_base and begin and not any(_begins_base(statement) for statement in statements):
            raise NotUnderstood("its __init__ does not call that of its base")

    def _check_module(self, own: frozenset[str]) -> None:
        """What the rest of the module does with it that a class of C would refuse."""
        for node in ast.walk(self._module):
            if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Load):
                continue
            if isinstance(node.ctx, ast.Del) and node.attr in own:
                raise NotUnderstood(f"line {node.lineno} deletes an attribute {node.attr}")
            if isinstance(node.value, ast.Name) and node.value.id == self._node.name:
                raise NotUnderstood(f"line {node.lineno} changes the class")


def _check_method(method: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    if method.name.startswith("__") and method.name not in _SPECIAL_METHODS:
        raise NotUnderstood(f"method {method.name}")
    for decorator in method.decorator_list:
        name = ast.unparse(decorator)
        if name not in _DECORATORS and not name.endswith(".setter"):
            raise NotUnderstood(f"method {method.name} is decorated with {name}")


def _targets(statement: ast.stmt) -> frozenset[str]:
    """The plain names that a statement assigns to; empty for all other statements."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return frozenset()
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _attributes_set(statement: ast.stmt) -> Iterator[str]:
    """Attributes of `self` that a statement sets whatever happens; what stands in a branch or loop does not count."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    else:
        return
    for target in targets:
        for part in target.elts if isinstance(target, ast.Tuple) else (target,):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
                yield part.attr


def _begins_base(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and ast.unparse(statement.value).startswith("super().__init__(")
