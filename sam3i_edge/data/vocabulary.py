"""The words for what is in a picture: nouns, adjectives, riddles and functions, as data.

A vocabulary is a JSON file; three come with the package: `shapes` (the ten drawn shapes), `tabletop` (30
things that stand on a table) and `coco` (its 80 categories). In a phrase `[a|b]` is a for one and b for many,
so one line serves "that [has|have] a hole". Words come with weights, 1 where none is given.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.errors import DataError

CATEGORY: Final = "category"  # the attribute that every object has
VOCABULARIES: Final = ("shapes", "tabletop", "coco")

_FOLDER: Final = Path(__file__).with_name("vocabularies")
_NUMBERED: Final = re.compile(r"\[([^|\[\]]*)\|([^|\[\]]*)\]")
_Weight = Annotated[float, Field(gt=0, le=1000)]
_Text = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9 '\-\[\]|]*$", max_length=80)]


def numbered(phrase: str, many: bool) -> str:
    """The phrase for one or for many."""
    return _NUMBERED.sub(r"\2" if many else r"\1", phrase)


class Noun(NamedTuple):
    """A word for one and for several, and how often it is chosen among the category's.

    Where both are the same word it is always spoken of as several: "the scissors that are", never "every".
    """

    one: _Text
    many: _Text
    weight: _Weight = 1.0


class Word(NamedTuple):
    """A word and how often it is chosen among its like."""

    text: _Text
    weight: _Weight = 1.0


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Category(_Part):
    """What is said of a class of objects.

    Attributes:
        nouns: the usual one first.
        names: other names that files may give it; never written.
        confusable: categories that its nouns might also mean; where there may be one, they are not used.
    """

    nouns: Annotated[tuple[Noun, ...], Field(min_length=1)]
    names: tuple[_Text, ...] = ()
    confusable: tuple[str, ...] = ()


class Value(_Part):
    """How one value of an attribute is said.

    Attributes:
        words: adjectives; the value itself where none is given.
        share: as in `Attribute`, for this value alone.
        like: things that nobody disputes to have it ("blood"), after "the color of".
        phrases: after the noun: "with stripes". hints: likewise, in riddles only: "patterned like a zebra".
        lacking: after the noun, of what does not have it: "without stripes".
    """

    words: tuple[Word, ...] = ()
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    like: tuple[_Text, ...] = ()
    phrases: tuple[_Text, ...] = ()
    hints: tuple[_Text, ...] = ()
    lacking: tuple[_Text, ...] = ()


class Group(_Part):
    """Values that one phrase covers: "with a pattern" for striped and dotted."""

    values: Annotated[tuple[str, ...], Field(min_length=1)]
    phrases: Annotated[tuple[_Text, ...], Field(min_length=1)]


class Attribute(_Part):
    """What objects differ in beside their category.

    Attributes:
        names: what it is called: "color", "colour".
        values: by name, in the order of the classes of an attribute head.
        share: how often a noun phrase names it, 0..1.
        place: where its adjective stands among the others, least first.
        phrased: how often it is said after the noun where there are phrases for it, 0..1.
        either_side: whether the adjective may also stand before its neighbour: "striped red", "red striped".
        riddles: how often a riddle speaks of it, beside 1 for riddles of categories.
        likened: how a value is said by what is `like` it: "the color of {}".
        alike: whether one asks for "the same color".
        groups: see `Group`.
    """

    names: Annotated[tuple[Word, ...], Field(min_length=1)]
    values: Annotated[Mapping[_Text, Value], Field(min_length=2)]
    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    place: int = 0
    phrased: Annotated[float, Field(ge=0, le=1)] = 0.2
    either_side: bool = False
    riddles: Annotated[float, Field(ge=0)] = 0
    likened: tuple[Annotated[str, Field(pattern=r"^[a-z \-\[\]|]*\{\}$")], ...] = ()
    alike: bool = False
    groups: tuple[Group, ...] = ()

    def words(self, value: str) -> tuple[Word, ...]:
        """Adjectives for a value."""
        return self.values[value].words or (Word(value),)

    def share_of(self, value: str) -> float:
        """How often a noun phrase names a value."""
        own = self.values[value].share
        return self.share if own is None else own

    @model_validator(mode="after")
    def _told_apart(self) -> Attribute:
        once("adjective", (word.text for value in self.values for word in self.words(value)))
        for group in self.groups:
            known("value", group.values, self.values)
        for name, value in self.values.items():
            spoken = bool(value.like or value.phrases or value.hints)
            if value.like and not self.likened:
                raise ValueError(f"{name!r} is like something, and nothing in likened says how")
            if self.riddles and not spoken:
                raise ValueError(f"{name!r} has no riddle: give it like, phrases or hints, or riddles 0")
        return self


class Riddle(_Part):
    """A description of categories that does not name them.

    Attributes:
        kind: "property" ("with a hole") or "function" ("to cut with", "that one drinks from").
        categories: what it describes.
        unclear: categories of which one could argue; where there may be one, the riddle is not asked.
        phrases: after "the thing" or "the things".
    """

    kind: Literal["property", "function"] = "property"
    categories: Annotated[tuple[str, ...], Field(min_length=1)]
    unclear: tuple[str, ...] = ()
    phrases: Annotated[tuple[_Text, ...], Field(min_length=1)]


class Vocabulary(_Part):
    """All words for the scenes of a kind.

    Attributes:
        name: of the vocabulary.
        kind: what a category is called: "shape", "kind".
        flat: whether the pictures are drawn on a plane, so that "above" and "tall" mean what they are in it.
        things: words for any object; the first also stands for objects of several categories.
        categories: by name, in the order of the classes of the attribute head.
        properties: the other attributes, likewise.
        riddles: descriptions of categories.
    """

    name: Annotated[str, Field(pattern=r"^[\w\-]+$")]
    kind: Annotated[tuple[Word, ...], Field(min_length=1)]
    flat: bool = False
    things: Annotated[tuple[Noun, ...], Field(min_length=1)]
    categories: Annotated[Mapping[_Text, Category], Field(min_length=2)]
    properties: Mapping[str, Attribute] = {}
    riddles: tuple[Riddle, ...] = ()

    @cached_property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of every attribute in order, "category" first."""
        others = {name: tuple(attribute.values) for name, attribute in self.properties.items()}
        return {CATEGORY: tuple(self.categories)} | others

    @property
    def mixed(self) -> str:
        """The noun for objects of several categories."""
        return self.things[0].one

    def category_of(self, name: str) -> str | None:
        """The category that a name, a plural or another file's name stands for, in any case; or None."""
        return self._by_name.get(_plain(name))

    def value_of(self, attribute: str, word: str) -> str | None:
        """The value of an attribute that a word stands for ("gray": "grey"); None for an unknown one."""
        found = self.properties.get(attribute)
        if found is None:
            return None
        plain = _plain(word)
        return next(
            (
                value
                for value in found.values
                if plain in (value, *(known.text for known in found.words(value)))
            ),
            None,
        )

    def nouns(self, category: str) -> tuple[Noun, ...]:
        """Words for a category; one that is unknown goes by its own name."""
        known = self.categories.get(category)
        return known.nouns if known is not None else (Noun(category, plural(category)),)

    def confusable(self, category: str) -> tuple[str, ...]:
        """The categories that a noun of this one might also mean."""
        found = self.categories.get(category)
        return found.confusable if found is not None else ()

    def riddles_of(self, category: str) -> tuple[Riddle, ...]:
        """The riddles that fit a category."""
        return self._riddles.get(category, ())

    @cached_property
    def _riddles(self) -> dict[str, tuple[Riddle, ...]]:
        return {name: tuple(r for r in self.riddles if name in r.categories) for name in self.categories}

    @cached_property
    def _by_name(self) -> dict[str, str]:
        return {name: category for category, name in self._names()}

    def _names(self) -> Iterator[tuple[str, str]]:
        for category, entry in self.categories.items():
            forms = {category, *entry.names, *(form for noun in entry.nouns for form in noun[:2])}
            yield from ((category, form) for form in sorted(forms))

    @model_validator(mode="after")
    def _consistent(self) -> Vocabulary:
        once("noun", (name for _, name in self._names()))
        things = [form for noun in self.things for form in noun[:2]]
        for thing in things:
            if thing in self._by_name:
                raise ValueError(f"the noun {thing!r} is both a category's and a word for any object")
        if CATEGORY in self.properties:
            raise ValueError(f"no property may be named {CATEGORY!r}: it is the first of every one")
        once("attribute", (word.text for entry in self.properties.values() for word in entry.names))
        once(
            "adjective",
            (
                word.text
                for entry in self.properties.values()
                for v in entry.values
                for word in entry.words(v)
            ),
        )
        for name, category in self.categories.items():
            known("category", category.confusable, self.categories)
            if name in category.confusable:
                raise ValueError(f"{name!r} is confusable with itself")
        for riddle in self.riddles:
            self._check_riddle(riddle)
        return self

    def _check_riddle(self, riddle: Riddle) -> None:
        known("category", (*riddle.categories, *riddle.unclear), self.categories)
        both = set(riddle.categories) & set(riddle.unclear)
        first = riddle.phrases[0]
        if both:
            raise ValueError(f"{min(both)!r} both fits the riddle {first!r} and is unclear")
        own = [self.categories[category].nouns[0] for category in riddle.categories]
        for phrase in riddle.phrases:
            text = f" {numbered(phrase, False)} {numbered(phrase, True)} "
            named = [form for noun in own for form in noun[:2] if f" {form} " in text]
            if named:
                raise ValueError(f"the riddle {phrase!r} names what it describes: {named[0]!r}")
            if set("[]|") & set(text):
                raise ValueError(f"the riddle {phrase!r} has a bracket without its pair; write [one|many]")


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """Reads a vocabulary.

    Args:
        name_or_path: one of `VOCABULARIES`, or a JSON file.

    Raises:
        DataError: there is no such file, or it is no vocabulary; says the first thing that is wrong.
    """
    if str(name_or_path) in VOCABULARIES:
        return _bundled(str(name_or_path))
    return _read(Path(name_or_path))


@cache
def _bundled(name: str) -> Vocabulary:
    return _read(_FOLDER / f"{name}.json")


def _read(path: Path) -> Vocabulary:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"vocabulary {path}: {error.strerror or error}; give one of {', '.join(VOCABULARIES)} or "
            "a JSON file of that layout"
        ) from error
    try:
        return Vocabulary.model_validate(json.loads(content, object_pairs_hook=_no_key_twice))
    except ValidationError as error:
        raise DataError(f"vocabulary {path}: {first_problem(error)}") from error
    except ValueError as error:
        raise DataError(f"vocabulary {path}: {error}") from error


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    once("name", (key for key, _ in pairs))
    return dict(pairs)


def plural(noun: str) -> str:
    """The regular English plural of a noun."""
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"


def once(what: str, names: Iterator[str]) -> None:
    """Refuses a name that comes twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"the {what} {twice[0]!r} is there twice; each may stand for one thing alone")


def known(what: str, names: tuple[str, ...], all_of_them: Mapping[str, Any]) -> None:
    """Refuses a name that the vocabulary does not define."""
    for name in names:
        if name not in all_of_them:
            raise ValueError(f"unknown {what} {name!r}; known: {', '.join(all_of_them)}")


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", name.lower()).split())
