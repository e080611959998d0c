"""What a compiler could get wrong, in one module that tells what it sees: it must say the same in both builds."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable


class Point:
    """Plain, with complete slots: a structure of C."""

    __slots__ = ("__weakref__", "x", "y")
    DIMENSIONS = 2

    def __init__(self, x: int, y: int = 0) -> None:
        self.x = x
        self.y = y

    @property
    def total(self) -> int:
        return self.x + self.y

    @total.setter
    def total(self, value: int) -> None:
        self.x, self.y = value, 0

    @staticmethod
    def origin() -> Point:
        return Point(0)

    @classmethod
    def named(cls, name: str) -> str:
        return f"{cls.__name__} {name}"

    @contextmanager
    def moved(self, by: int) -> Iterator[Point]:
        self.x += by
        try:
            yield self
        finally:
            self.x -= by

    def __repr__(self) -> str:
        return f"Point({self.x}, {self.y})"


class Pixel(Point):
    """A structure that extends another."""

    __slots__ = ("colour",)

    def __init__(self, colour: str) -> None:
        super().__init__(1, 2)
        self.colour = colour


class Secretive:
    """Names that Python changes."""

    __slots__ = ("__hidden",)

    def __init__(self) -> None:
        self.__hidden = 1

    def told(self) -> int:
        return self.__hidden


class Registered:
    """A class that hears of its subclasses."""

    heard: list[str] = []  # noqa: RUF012  # shared on purpose

    def __init_subclass__(cls) -> None:
        cls.heard.append(cls.__name__)


class Child(Registered):
    """Heard of."""


@runtime_checkable
class Shape(Protocol):
    """What has a total."""

    @property
    def total(self) -> int: ...


@dataclass(frozen=True, order=True)
class Size:
    """With a default that is made anew."""

    width: int
    tags: list[str] = field(default_factory=list, compare=False)


class Pair(NamedTuple):
    """A tuple with names."""

    left: int
    right: str = "r"


def numbers(said: list[str]) -> Iterator[int]:
    try:
        yield from range(10)
    finally:
        said.append("generator closed")


async def ticks(said: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(10):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)
        said.append("async generator closed")


def fails() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


async def fails_later() -> None:
    await asyncio.sleep(0)
    try:
        fails()
    except ValueError:
        raise RuntimeError("third")  # noqa: B904  # its context is what is looked at


async def waits(said: list[str]) -> None:
    try:
        async with asyncio.timeout(60):
            await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        said.append(f"cancelled {error.args}")
        raise
    finally:
        await asyncio.sleep(0)
        said.append("cleaned up")


async def _asynchronously(said: list[str]) -> None:
    waiting = asyncio.create_task(waits(said))
    await asyncio.sleep(0)
    waiting.cancel("enough")
    done, _ = await asyncio.wait([waiting])
    said.append(f"{[task.cancelled() for task in done]}")
    stream = ticks(said)
    async for number in stream:
        if number == 2:
            break
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator
    try:
        await fails_later()
    except RuntimeError as error:
        said += _told(error)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_later())
            group.create_task(waits(said))
    except ExceptionGroup as errors:
        said.append(f"{errors.exceptions}")
    said.append(f"{asyncio.iscoroutinefunction(waits)} {inspect.isawaitable(asyncio.sleep(0))}"[:4])


def _told(error: BaseException) -> list[str]:
    inner = error.__context__
    assert inner is not None
    lines = [f"{frame.name.rpartition('.')[2]}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return [f"{error!r} in {inner!r} from {inner.__cause__!r}", " ".join(lines)]


def _objects(said: list[str]) -> None:
    point = Point(1, y=2)
    said.append(f"{point} {point.total} {Point.DIMENSIONS} {point.DIMENSIONS} {Point.origin()} {Point.named('p')}")
    point.total = 7
    with point.moved(3) as moved:
        said.append(f"{moved}")
    said.append(f"{copy.copy(point)} {copy.deepcopy(point)} {pickle.loads(pickle.dumps(point))}")  # ours
    pixel = pickle.loads(pickle.dumps(Pixel("red")))  # ours
    said.append(f"{pixel.colour} {pixel} {isinstance(pixel, Point)} {Pixel.__mro__[1].__name__}")
    reference = weakref.ref(point)
    said.append(f"{reference() is point} {isinstance(point, Shape)} {isinstance(3, Shape)}")
    del point, moved
    said.append(f"{reference()}")
    for change in ("z", "DIMENSIONS"):
        try:
            setattr(pixel, change, 1)
        except AttributeError:
            said.append(f"no attribute {change} to set")
    said.append(
        f"{Secretive().told()} {Registered.heard} {Size(1) < Size(2, ['a'])} {Size(3)} {Pair(1)} {Pair(1).right}"
    )
    said.append(f"{inspect.signature(Point.named)} {inspect.signature(numbers)} {Point.__doc__}")


def try_out() -> None:
    """Print what happens, line by line."""
    said: list[str] = []
    _objects(said)
    for number in (generator := numbers(said)):
        if number == 3:
            generator.close()  # type: ignore[attr-defined]  # a generator
            break
    asyncio.run(_asynchronously(said))
    print(*said, sep="\n")
