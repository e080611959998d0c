"""Vectors of texts by their words alone, made here: no model, no key, no network. Pure.

Each word, each pair of neighbouring words, and the beginning of each longer word is hashed to one number of the vector
and adds to it with a sign of its own (feature hashing); rarer repetitions count more than further ones. Two texts are
near each other as far as they share words. It knows no synonyms and no meaning: for development, tests, and texts whose
readers ask in the texts' own words.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections import Counter

MODEL = "lexical"
DIMENSIONS = 1024

_WORD = re.compile(r"[^\W_]+")
_COMMON_WORDS = """
a about all also an and any are as at be been but by can could did do does for from had has have he her his how i if in
into is it its just may me more most my no nor not of on one only or other our she should so some such than that the
their them then there these they this those to was we were what when where which while who whom why will with would you
your der die das und ist von den ein eine le la les et un une de des
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ers", "ed", "es", "er", "ly", "s", "e")
_LEAST_STEM = 3
_BEGINNING = 5
_WEIGHT_OF_PAIR = 0.5
_WEIGHT_OF_BEGINNING = 0.4


def lexical_vector(text: str) -> list[float]:
    """A vector of length 1; all zeros for a text without a word that tells anything."""
    vector = [0.0] * DIMENSIONS
    for feature, weight in _features(text).items():
        code = zlib.crc32(feature.encode())
        vector[code % DIMENSIONS] += weight if code & 0x8000_0000 else -weight
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else vector


def _features(text: str) -> dict[str, float]:
    words = [_stem(word) for word in _WORD.findall(text.lower()) if word not in _COMMON]
    counts: Counter[str] = Counter(words)
    features = {word: 1.0 + math.log(count) for word, count in counts.items()}
    pairs = Counter(f"{first} {second}" for first, second in itertools.pairwise(words))
    features |= {pair: _WEIGHT_OF_PAIR * (1.0 + math.log(count)) for pair, count in pairs.items()}
    beginnings = Counter(word[:_BEGINNING] for word in words if len(word) > _BEGINNING)
    features |= {
        f"{beginning}*": _WEIGHT_OF_BEGINNING * (1.0 + math.log(count)) for beginning, count in beginnings.items()
    }
    return features


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
            return word[: -len(ending)]
    return word
