"""Vectors of words, for development without a model."""

from __future__ import annotations

import math

import pytest

from providers import AgentConfig
from providers.lexical_vectors import DIMENSIONS, lexical_vector
from providers.scripted import EMBEDDING_DIMENSIONS, ScriptedProvider


def likeness(one: str, other: str) -> float:
    """The cosine of the angle between two texts."""
    return sum(a * b for a, b in zip(lexical_vector(one), lexical_vector(other), strict=True))


def test_shared_words_bring_texts_together() -> None:
    """The more words two texts share, in whatever form, the nearer they are; order counts a little."""
    question = "how are filters changed?"
    assert likeness(question, "Changing the filter of a pump") > likeness(question, "Draining a pump") + 0.2
    assert likeness("red pump blue valve", "red pump blue valve") == pytest.approx(1.0)
    assert likeness("red pump blue valve", "red pump blue valve") > likeness(
        "red pump blue valve", "red valve blue pump"
    )


def test_vectors_are_of_one_length() -> None:
    """Of length 1, always the same; a text that says nothing has none."""
    vector = lexical_vector("Zażółć gęślą jaźń")
    assert len(vector) == DIMENSIONS
    assert math.hypot(*vector) == pytest.approx(1.0)
    assert vector == lexical_vector("Zażółć gęślą jaźń")
    assert lexical_vector("the of ?!") == [0.0] * DIMENSIONS


async def test_the_scripted_provider_has_both() -> None:
    """ark's mock vector, unless the lexical model is asked for."""
    provider = ScriptedProvider()
    (mock,) = await provider.embed(AgentConfig(model="mock"), ["pump"])
    assert (len(mock), mock[0], any(mock[1:])) == (EMBEDDING_DIMENSIONS, 4 / 10_000, False)
    asked = AgentConfig(model="lexical", options={"embedding_model": "lexical"})
    assert await provider.embed(asked, ["pump"]) == [lexical_vector("pump")]
