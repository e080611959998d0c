"""Which classes become structures of C, and what is said of them to the compiler."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from slot_declarations import declarations

if TYPE_CHECKING:
    from collections.abc import Callable

POINT = """
    class Point:
        '''Where something is.'''

        __slots__ = ("x", "y", "__weakref__")
        DIMENSIONS = 2

        def __init__(self, x, y):
            self.x = x
            self.y = y

        @property
        def sum(self):
            return self.x + self.y
"""


def pxd(source: str) -> str:
    """What the compiler is told of a module."""
    return declarations(dedent(source)).pxd()


def test_slots_become_fields() -> None:
    """Each slot is a field that anybody may read and set; the list of weak references is the compiler's own."""
    expected = "cdef class Point:\n    cdef public object x\n    cdef public object y\n    cdef object __weakref__\n"
    assert pxd(POINT) == expected


def test_a_subclass_of_a_declared_class_is_declared() -> None:
    """Its own slots only, after its base's; its base must have begun before it."""
    source = dedent(POINT) + dedent("""
        class Pixel(Point):
            __slots__ = ("colour",)

            def __init__(self, colour):
                super().__init__(0, 0)
                self.colour = colour

        class Origin(Point):
            __slots__ = ()
    """)
    assert "cdef class Pixel(Point):\n    cdef public object colour\n" in pxd(source)
    assert "cdef class Origin(Point):\n    pass\n" in pxd(source)


def test_classes_without_slots_are_nobodys_business() -> None:
    """Neither declared nor reported: they stay as they are."""
    found = declarations("class A:\n    def __init__(self):\n        self.x = 1\n")
    assert (found.pxd(), found.left) == ("", {})


def changed(old: str, new: str) -> Callable[[], str]:
    """The point, but for one thing."""
    assert old in POINT
    return lambda: dedent(POINT.replace(old, new))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (changed("class Point:", "class Point(Other):"), "extends something other"),
        (changed("class Point:", "class Point(metaclass=M):"), "keywords"),
        (changed("class Point:", "@final\n    class Point:"), "decorators"),
        (changed('("x", "y", "__weakref__")', "NAMES"), "not written out"),
        (changed('"__weakref__"', '"__dict__"'), "slot __dict__"),
        (changed('"__weakref__"', '"__secret"'), "slot __secret"),
        (changed("self.y = y", "self.y = self.__z(y)"), "__z would be renamed"),
        (changed("self.y = y", "self.y = __class__"), "uses __class__"),
        (changed("self.y = y", "if y: self.y = y"), "does not always set y"),
        (changed("def sum", "def y"), "name of a slot"),
        (changed("def sum", "def __eq__"), "method __eq__"),
        (changed("def sum", "def __init_subclass__"), "method __init_subclass__"),
        (changed("@property", "@functools.cached_property"), "decorated with functools.cached_property"),
        (changed("DIMENSIONS = 2", "class Inner: ..."), "neither method nor constant"),
        (lambda: dedent(POINT) + "\ndef forget(point):\n    del point.x\n", "deletes an attribute x"),
        (lambda: dedent(POINT) + "\nPoint.DIMENSIONS = 3\n", "changes the class"),
    ],
)
def test_what_is_not_understood_stays_python(source: Callable[[], str], reason: str) -> None:
    """Whatever could come out otherwise in C is left as it is, and why is known."""
    found = declarations(source())
    assert found.pxd() == ""
    assert reason in found.left["Point"]


def test_a_base_whose_beginning_is_left_out_is_not_understood() -> None:
    """Its attributes would be None instead of missing."""
    source = dedent(POINT) + "\nclass B(Point):\n    __slots__ = ()\n    def __init__(self):\n        print()\n"
    assert "does not call that of its base" in declarations(source).left["B"]
