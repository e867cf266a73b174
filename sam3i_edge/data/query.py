"""What an instruction asks for, as a value: a class of objects, what narrows it, what is picked of the rest.

`truth` answers it, `wording` says it. No word of it is fixed but for riddles, whose phrase is their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SideName = Literal["left", "right", "above", "below"]
Edge = Literal["left", "right", "top", "bottom"]
Region = Literal[
    "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right", "center"
]
Measure = Literal["big", "tall", "wide"]


@dataclass(frozen=True, slots=True)
class Is:
    """An attribute has one of some values; "category" is an attribute too.

    Attributes:
        attribute: its name.
        values: any of them will do.
        unclear: values of which one could argue.
        negated: whether it must have none of them.
    """

    attribute: str
    values: frozenset[str]
    unclear: frozenset[str] = frozenset()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """On one side of another object, by their centres in the picture."""

    side: SideName
    reference: Query


@dataclass(frozen=True, slots=True)
class Related:
    """In a relation that the scene knows: "on", "in", "next to", "behind", "in front of"."""

    name: str
    reference: Query


@dataclass(frozen=True, slots=True)
class Between:
    """Between two others in the picture."""

    first: Query
    second: Query


@dataclass(frozen=True, slots=True)
class Inside:
    """In a part of the picture."""

    region: Region


@dataclass(frozen=True, slots=True)
class Compared:
    """Bigger, taller or wider than another; with `less`, smaller, shorter or narrower."""

    measure: Measure
    less: bool
    reference: Query


@dataclass(frozen=True, slots=True)
class Alike:
    """With the same value of an attribute as another; `unclear` are values that might pass for its."""

    attribute: str
    reference: Query
    unclear: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Largest:
    """The biggest, tallest or widest; with `least`, the smallest, shortest or narrowest."""

    measure: Measure
    least: bool


@dataclass(frozen=True, slots=True)
class Outermost:
    """The `count` nearest to an edge of the picture."""

    edge: Edge
    count: int = 1


@dataclass(frozen=True, slots=True)
class Ordinal:
    """The `number`-th (from 1) from an edge."""

    edge: Edge
    number: int


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest to another object, or to the camera (None); with `farthest`, the farthest."""

    reference: Query | None
    farthest: bool


@dataclass(frozen=True, slots=True)
class Odd:
    """The one that differs in some of these attributes, in which all others are equal."""

    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The only two that share a value of an attribute."""

    attribute: str


Filter: TypeAlias = Is | Side | Related | Between | Inside | Compared | Alike
Pick: TypeAlias = Largest | Outermost | Ordinal | Nearest | Odd | Pair


@dataclass(frozen=True, slots=True)
class Modifier:
    """A test that belongs to the name of a class.

    Attributes:
        test: what it demands.
        phrase: how it is said after the noun, may hold `[one|many]`; "" leaves the words to the vocabulary.
        function: whether the phrase says what the thing is for: "to cut with".
    """

    test: Is
    phrase: str = ""
    function: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """A class of objects: "red star", "thing with a hole", "thing".

    Attributes:
        category: what the noun names; None for "thing" and the like.
        confusable: categories that the noun might also mean.
        modifiers: its adjectives and riddles.
    """

    category: str | None = None
    confusable: frozenset[str] = frozenset()
    modifiers: tuple[Modifier, ...] = ()

    @property
    def tests(self) -> tuple[Is, ...]:
        """All that it demands of a member."""
        others = tuple(modifier.test for modifier in self.modifiers)
        if self.category is None:
            return others
        return (Is("category", frozenset({self.category}), self.confusable), *others)

    @property
    def thing(self) -> bool:
        """Whether it is any object at all."""
        return self.category is None and not self.modifiers

    @property
    def riddle(self) -> bool:
        """Whether it describes without a noun."""
        return any(modifier.phrase for modifier in self.modifiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question.

    Attributes:
        form: its kind: "whole", "relation", "size", …
        head: the class that it names.
        filters: what the members must also be.
        pick: what is chosen of those, or None for all of them.
        without: what is left out: an object, or what has a value.
        universal: whether it asks for every member of the class, be it a single one.
    """

    form: str
    head: Description
    filters: tuple[Filter, ...] = ()
    pick: Pick | None = None
    without: Query | Is | None = None
    universal: bool = False
