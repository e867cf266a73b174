"""An instruction taken apart: what a family of wordings puts together in its own way.

`wording.phrase_of` makes a `Phrase` of a query: words are chosen there, but for those that say how much is
asked for and in which order it is said. `plain` is the usual wording; another family is a function like it,
from a `Phrase` and what decides to a text: "which star is the largest?" of the superlative "largest" and the
noun "star", "every single blue object" of the adjective "blue" and the count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal, NamedTuple

from sam3i_edge.data.vocabulary import Noun, numbered

NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
THAT_IS: Final = "that [is|are] "


class Adjective(NamedTuple):
    """A word before the noun, and the attribute that it tells: ("color", "red")."""

    attribute: str
    text: str


@dataclass(frozen=True, slots=True)
class Tail:
    """What narrows the noun and stands after it.

    Attributes:
        kind: the form it belongs to: "relation", "region", "distance", "likeness", …
        text: "left of the ring", "with the same color as the ring"; may hold `[one|many]`.
        link: whether "that is" goes before it: never, at will, or always.
    """

    kind: str
    text: str
    link: Literal["never", "may", "must"] = "may"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """The parts of an instruction, lower case.

    Attributes:
        form: of the query.
        count: how many objects it asks for; 0 where there are none and any number would do.
        universal: whether it asks for every member of the class, be it a single one.
        noun: for one and for many.
        adjectives: before the noun, in order.
        complement: after it: "with stripes", "to cut with"; may hold `[one|many]`.
        generic: whether the noun stands for any object: "thing", "one".
        clause: one that can stand for noun and complement: "what stands for love", "something to cut with".
        tails: what narrows it further.
        superlative: "largest", "leftmost", "second": what is picked; the whole phrase then means that alone.
        picked: how many the superlative picks.
        without: what is left out, with its article: "the green ones".
        idiom: the whole of it, where it does not come apart: "the odd one out in color".
    """

    form: str
    count: int
    universal: bool
    noun: Noun
    adjectives: tuple[Adjective, ...] = ()
    complement: str = ""
    generic: bool = False
    clause: str = ""
    tails: tuple[Tail, ...] = field(default=())
    superlative: str = ""
    picked: int = 1
    without: str = ""
    idiom: str = ""

    @property
    def thing(self) -> bool:
        """Whether noun and all say no more than "thing", so that "everything" can take their place."""
        return self.generic and not self.adjectives and not self.complement

    @property
    def one(self) -> str:
        """Adjectives, noun and complement for one: "red star with stripes"."""
        return self._named(many=self.plural_only)

    @property
    def many(self) -> str:
        """The same for several."""
        return self._named(many=True)

    @property
    def plural_only(self) -> bool:
        """Whether a single one is spoken of as several: "the scissors that are red"."""
        return self.noun.one == self.noun.many and self.noun.one.endswith("s")

    def _named(self, many: bool) -> str:
        words = [adjective.text for adjective in self.adjectives]
        parts = (*words, self.noun.many if many else self.noun.one, numbered(self.complement, many))
        return " ".join(part for part in parts if part)


def plain(phrase: Phrase, random: Random) -> str:
    """The usual wording: "the red star left of the ring", "every large square", "circles"."""
    if phrase.idiom:
        return phrase.idiom
    if phrase.form == "concept":
        return phrase.one if random.random() < 0.55 else phrase.many
    if phrase.without:
        return _exception(phrase, random)
    if phrase.form == "negation":
        return _negation(phrase, random)
    tail = " ".join(_linked(tail, phrase, random) for tail in phrase.tails)
    if phrase.superlative:
        number = f"{NUMBERS[phrase.picked]} " if phrase.picked > 1 else ""
        several = phrase.picked > 1 or phrase.plural_only
        noun = phrase.many if phrase.picked > 1 else phrase.one
        return f"the {number}{phrase.superlative} {_joined(noun, tail, several)}"
    if phrase.form == "likeness" and phrase.thing:
        return _others(phrase, tail, random)
    if phrase.universal and phrase.count == 1 and not phrase.plural_only:
        every = "each" if phrase.noun.one == "one" else random.choice(("every", "each"))  # not "every one"
        return f"{every} {_joined(phrase.one, tail, False)}"
    many = phrase.count > 1 if phrase.count else random.random() < 0.3
    return _several(phrase, tail, random) if many else _single(phrase, tail, random)


def _linked(tail: Tail, phrase: Phrase, random: Random) -> str:
    often = 0.5 if " " in phrase.one else 0.25
    linked = tail.link == "must" or (
        tail.link == "may" and not phrase.superlative and random.random() < often
    )
    return THAT_IS + tail.text if linked else tail.text


def _joined(noun: str, tail: str, many: bool) -> str:
    return f"{noun} {numbered(tail, many)}" if tail else noun


def _single(phrase: Phrase, tail: str, random: Random) -> str:
    if phrase.clause and not tail and random.random() < 0.5:
        return phrase.clause
    bare = random.random() < 0.12 and (tail or " " in phrase.one)
    return ("" if bare else "the ") + _joined(phrase.one, tail, phrase.plural_only)


def _several(phrase: Phrase, tail: str, random: Random) -> str:
    choose = random.choice
    one, many = _joined(phrase.one, tail, False), _joined(phrase.many, tail, True)
    if phrase.thing and random.random() < 0.55:
        single = numbered(tail, False)
        if single.startswith("that "):
            return f"{choose(('everything', 'everything', 'anything'))} {single}"
        return f"{choose(('everything', 'everything', 'everything', 'anything', 'whatever is'))} {single}"
    if phrase.clause and not tail and random.random() < 0.5:
        stem = phrase.clause.removeprefix("what ").removeprefix("something ")
        if phrase.clause.startswith("something "):
            return f"{choose(('everything', 'anything', 'all things'))} {stem}"
        return choose(("everything that ", "whatever ", "what ", "anything that ")) + stem
    if 2 <= phrase.count < len(NUMBERS) and random.random() < 0.14:
        if phrase.count == 2 and random.random() < 0.5:
            return f"both {many}"
        return f"{choose(('the', 'the', 'all'))} {NUMBERS[phrase.count]} {many}"
    forms = [f"the {many}", f"the {many}", f"all the {many}"]
    if phrase.noun.many != "ones":  # nobody says "all ones"
        forms += [f"all {many}", f"all {many}", many if tail else f"all of the {many}"]
    if not phrase.plural_only:
        forms += (
            [f"each {one}"] if phrase.noun.one == "one" else [f"every {one}", f"every {one}", f"each {one}"]
        )
    return choose(forms)


def _exception(phrase: Phrase, random: Random) -> str:
    word = random.choice(("except", "except", "except for", "but", "but not", "apart from"))
    starts = [f"all {phrase.many}", f"all {phrase.many}", f"all the {phrase.many}"]
    starts += [] if phrase.plural_only else [f"every {phrase.one}"]
    if phrase.thing and random.random() < 0.6:
        starts = ["everything", "everything", "all"]
    return f"{random.choice(starts)} {word} {phrase.without}"


def _negation(phrase: Phrase, random: Random) -> str:
    tail, one, many = phrase.tails[0].text, phrase.one, phrase.many
    if phrase.tails[0].link == "never":  # "without stripes"
        start = f"the {one}" if phrase.count == 1 else random.choice(("everything", f"all {many}"))
        return f"{start} {tail}"
    if phrase.count == 1:
        return random.choice((f"the {one} that is", f"the only {one} that is", "what is")) + f" {tail}"
    starts = (
        "everything that is", "whatever is", f"all {many} that are", f"every {one} that is",
        "anything that is", f"the {many} that are",
    )  # fmt: skip
    return f"{random.choice(starts)} {tail}"


def _others(phrase: Phrase, tail: str, random: Random) -> str:
    if phrase.count == 1:
        return f"the other {phrase.one} {tail}"
    several = ("everything else", f"all other {phrase.many}", f"the other {phrase.many}")
    return f"{random.choice(several)} {tail}"
