"""What a text says, as far as words alone tell, so that a rewriting that loses or adds a condition is caught.

The rules are strict: a rewriting that says the same by another kind of word ("to its right" for "left of") is
dropped too. They know the vocabulary's nouns and adjectives, and the words below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sam3i_edge.data.vocabulary import Attribute, Vocabulary, numbered

_MOST_WORDS: Final = 24  # so that the text encoder's 32 tokens hold it
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.'?!;\-]*")
_NUMBERED_THING: Final = re.compile(r"\b(?:objects?|items?|numbers?|boxe?s?|sets?) (?:number )?\d")
_WORDS: Final = {  # a condition, and the words that say it
    "negation": (
        "not no without except excluding excepting but neither nor none never lack lacks lacking cannot non "
        "other-than apart-from besides",
    ),
    "number": (
        "two both pair 2", "three 3", "four 4", "five 5", "six 6", "seven 7", "eight 8", "nine 9", "ten 10",
        "second 2nd", "third 3rd", "fourth 4th", "fifth 5th", "first 1st", "last",
    ),
    "place": (
        "left leftmost left-hand", "right rightmost right-hand",
        "above over top topmost upper uppermost higher highest",
        "below under underneath beneath bottom bottommost lower lowest", "behind", "front",
        "between", "inside within", "edge edges border", "middle center centre",
        "nearest closest nearer closer", "farthest furthest farther further",
        "next beside adjacent alongside", "camera", "around", "on atop", "touching touches touch",
    ),
    "comparison": (
        "largest biggest larger bigger", "smallest tiniest littlest smaller tinier", "tallest taller",
        "shortest shorter", "widest wider", "narrowest narrower thinnest thinner",
        "same matching match matches identical", "different differs differ differing odd",
        "most", "least fewest",
    ),
}  # fmt: skip
_PHRASES: Final = (  # what is more than one word, and an "on" that is no relation
    (re.compile(r"\bother than\b"), "other-than"),
    (re.compile(r"\bapart from\b"), "apart-from"),
    (re.compile(r"\bon(?= (?:the |its |your )?(?:left|right|top|bottom|upper|lower|far))"), ""),
)
# "can" is a noun too, and no rewriting means one by "can you find".
_AUXILIARY: Final = re.compile(
    r"\bcan(?= (?:you|i|we|one|they|someone|anyone|be)\b)"
    r"|(?<=\b(?:you|one) )can\b|(?<=\b(?:that|they|what) )can\b"
)

MEANING = TypeVar("MEANING")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a text names.

    Attributes:
        nouns: categories, in the order of the text.
        values: of each attribute, likewise; "" where only its name is said ("of another color").
        words: kinds of words, (condition, the first word that says it).
    """

    nouns: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    words: frozenset[tuple[str, str]]


class Rules:
    """The rules for texts about scenes of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._nouns = _Finder({form: name for name in vocabulary.categories for form in self._forms(name)})
        said: dict[str, tuple[str, str]] = {}
        for name, attribute in vocabulary.properties.items():
            said |= dict.fromkeys((word.text for word in attribute.names), (name, ""))
            for value in attribute.values:
                said |= dict.fromkeys(_said(value, attribute), (name, value))
        self._values = _Finder(said)
        self._words = _Finder(
            {
                word: (condition, group.split()[0])
                for condition, groups in _WORDS.items()
                for group in groups
                for word in group.split()
            }
        )

    def conditions(self, text: str) -> Conditions:
        """What a text names."""
        plain = _lowered(text)
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self._values.find(plain):
            values[name] = (*values.get(name, ()), value)
        for name, found in values.items():
            values[name] = tuple(value for value in found if value) or found[:1]
        words = self._values.without(plain)  # "with no pattern" says a pattern, and denies nothing
        for phrase, word in _PHRASES:
            words = phrase.sub(word, words)
        kinds = set(self._words.find(words))
        if "n't" in words:
            kinds.add(("negation", "not"))
        return Conditions(tuple(self._nouns.find(plain)), values, frozenset(kinds))

    def lost(self, before: str, after: str) -> str | None:
        """Which kind of condition a rewriting loses or adds; None where words tell no difference."""
        one, two = self.conditions(before), self.conditions(after)
        if one.nouns != two.nouns:
            return "another noun"
        names = sorted({*one.values, *two.values})
        for name in names:
            if one.values.get(name) != two.values.get(name):
                return f"another {name}"
        if one.words != two.words:
            return f"another {min(condition for condition, _ in one.words ^ two.words)}"
        return None

    def names(self, text: str, categories: Iterable[str]) -> bool:
        """Whether a text names one of some categories, or one that people call by the same names."""
        known, meant = self._vocabulary.categories, set(categories)
        for category in tuple(meant):
            meant |= {*self._vocabulary.confusable(category)}
            meant |= {other for other in known if category in self._vocabulary.confusable(other)}
        # A category that no vocabulary knows goes by its own name.
        own = _Finder({form: name for name in meant for form in self._forms(name)})
        return bool(own.find(_lowered(text)))

    def _forms(self, category: str) -> Iterator[str]:
        known = self._vocabulary.categories.get(category)
        yield category
        yield from () if known is None else known.names
        for noun in self._vocabulary.nouns(category):
            yield from noun[:2]


def is_plain(text: str) -> bool:
    """Whether a text is one short line of plain English that speaks of no object by a number."""
    return (
        _PLAIN.fullmatch(text) is not None
        and len(text.split()) <= _MOST_WORDS
        and _NUMBERED_THING.search(text.lower()) is None
    )


class _Finder(Generic[MEANING]):
    """Finds words and phrases in a plain text, the longest first; what one has taken no other takes."""

    def __init__(self, meanings: Mapping[str, MEANING]) -> None:
        self._meanings = {_lowered(form): meaning for form, meaning in meanings.items()}
        forms = sorted(self._meanings, key=len, reverse=True)
        # Without any form it finds nothing: no text ends before it begins.
        self._pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, forms)) or '(?!)'})(?![\w-])")

    def find(self, text: str) -> list[MEANING]:
        """The meanings in a text, in its order."""
        return [self._meanings[found] for found in self._pattern.findall(text)]

    def without(self, text: str) -> str:
        """The text without what has a meaning."""
        return self._pattern.sub(" ", text)


def _said(value: str, attribute: Attribute) -> Iterator[str]:
    """The words and phrases for a value, for one and for many."""
    yield value
    yield from (word.text for word in attribute.words(value))
    for phrase in attribute.values[value].phrases:
        yield from (numbered(phrase, many) for many in (False, True))


def _lowered(text: str) -> str:
    text = text.lower().replace("\u2019", "'").replace("_", " ").replace("-shaped", " shaped")
    return _AUXILIARY.sub("", " ".join(text.split()))
