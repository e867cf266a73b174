"""Words for a query: from its meaning to the parts of a phrase. What is repeated is chosen more often."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from sam3i_edge.data.phrase import Adjective, Phrase, Tail
from sam3i_edge.data.query import (
    Between,
    Compared,
    Description,
    Edge,
    Filter,
    Inside,
    Is,
    Largest,
    Measure,
    Nearest,
    Odd,
    Ordinal,
    Outermost,
    Pair,
    Query,
    Region,
    Related,
    Side,
    SideName,
)
from sam3i_edge.data.truth import Answer
from sam3i_edge.data.vocabulary import CATEGORY, Noun, Vocabulary, Word, numbered

_ORDINALS: Final = ("", "first", "second", "third", "fourth", "fifth")
_ONE: Final = Noun("one", "ones")
_SIDES: Final[dict[SideName, tuple[str, ...]]] = {
    "left": ("left of", "left of", "to the left of", "to the left of", "on the left of"),
    "right": ("right of", "right of", "to the right of", "to the right of", "on the right of"),
    "above": ("above", "above", "above", "higher than", "higher up than"),
    "below": ("below", "below", "below", "under", "beneath", "underneath", "lower than"),
}
_RELATIONS: Final[dict[str, tuple[str, ...]]] = {
    "on": ("on", "on", "on top of"),
    "in": ("in", "in", "inside"),
    "next to": ("next to", "next to", "beside"),
}
_PLACES: Final[dict[Region, tuple[str, ...]]] = {
    "left": ("on the left side", "on the left", "in the left half", "in the left part"),
    "right": ("on the right side", "on the right", "in the right half", "in the right part"),
    "top": ("in the upper half", "in the top half", "in the upper part"),
    "bottom": ("in the lower half", "in the bottom half", "in the lower part"),
    "top left": (
        "in the top left corner", "in the upper left corner", "at the top left", "in the upper left",
    ),
    "top right": (
        "in the top right corner", "in the upper right corner", "at the top right", "in the upper right",
    ),
    "bottom left": (
        "in the bottom left corner", "in the lower left corner", "at the bottom left", "in the lower left",
    ),
    "bottom right": (
        "in the bottom right corner", "in the lower right corner", "at the bottom right",
        "in the lower right",
    ),
    "center": ("in the center", "in the middle", "in the middle", "in the center", "in the centre"),
}  # fmt: skip
_OF_IMAGE: Final = ("", "", "", "", " of the image", " of the picture")
_OUTERMOST: Final[dict[Edge, tuple[str, ...]]] = {
    "left": ("leftmost",),
    "right": ("rightmost",),
    "top": ("topmost", "highest", "uppermost"),
    "bottom": ("bottommost", "lowest"),
}
_EDGE_TAILS: Final[dict[Edge, tuple[str, ...]]] = {
    "left": ("farthest to the left", "furthest left", "closest to the left edge", "at the far left"),
    "right": ("farthest to the right", "furthest right", "closest to the right edge", "at the far right"),
    "top": ("closest to the top", "at the very top", "nearest the top edge", "highest up"),
    "bottom": ("closest to the bottom", "at the very bottom", "nearest the bottom edge", "lowest down"),
}
_OF_TWO: Final[dict[Edge, str]] = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}
_LARGEST: Final[dict[tuple[Measure, bool], tuple[str, ...]]] = {
    ("big", False): ("biggest", "biggest", "largest"),
    ("big", True): ("smallest", "smallest", "tiniest"),
    ("tall", False): ("tallest",),
    ("tall", True): ("shortest",),
    ("wide", False): ("widest",),
    ("wide", True): ("narrowest",),
}
_COMPARED: Final[dict[tuple[Measure, bool], tuple[str, ...]]] = {
    ("big", False): ("bigger than", "larger than"),
    ("big", True): ("smaller than",),
    ("tall", False): ("taller than",),
    ("wide", False): ("wider than",),
}
_NEAREST: Final = ("nearest to", "closest to")
_FARTHEST: Final = ("farthest from", "furthest from", "farthest away from")
_TO_CAMERA: Final = ("closest to the camera", "nearest to the camera", "closest to the viewer")
_FROM_CAMERA: Final = ("farthest from the camera", "furthest from the camera", "farthest away")
_ODD: Final = (
    "the odd one out in {name}", "the odd one out by {name}",
    "the one whose {name} differs from all the others", "the {one} with a different {name} than the rest",
    "the only {one} of another {name}", "what differs in {name} from everything else",
    "the one that does not match the others in {name}",
)  # fmt: skip
_ODD_ANYHOW: Final = (
    "the odd one out", "the one that does not belong", "the one that is not like the others",
    "the {one} that is different from the rest", "what does not fit in with the others", "the odd one",
)  # fmt: skip
_PAIRS: Final = (
    "the two of the same {name}", "the two {many} of the same {name}", "the pair that matches in {name}",
    "the two {many} that share a {name}", "both {many} that have the same {name}",
)  # fmt: skip


def phrase_of(query: Query, answer: Answer, vocabulary: Vocabulary, random: Random) -> Phrase:
    """Chooses words for a query.

    Args:
        query: what is asked.
        answer: its answer, for singular and plural.
        vocabulary: the words.
        random: decides between synonyms.
    """
    return _Speaker(vocabulary, random).phrase(query, answer)


class _Speaker:
    """A vocabulary and what decides between its words."""

    def __init__(self, vocabulary: Vocabulary, random: Random) -> None:
        self.vocabulary, self.random = vocabulary, random

    def phrase(self, query: Query, answer: Answer) -> Phrase:
        head, choose = query.head, self.random.choice
        noun, adjectives, complement, clause = self.description(head)
        tails = [self.tail(query, condition) for condition in query.filters]
        pick, superlative, picked, idiom = query.pick, "", 1, ""
        if isinstance(pick, Largest):
            superlative = choose(_LARGEST[pick.measure, pick.least])
        elif isinstance(pick, Ordinal):
            superlative = _ORDINALS[pick.number]
            tails.append(Tail("order", f"from the {pick.edge}", "never"))
        elif isinstance(pick, Nearest):
            tails.append(Tail(query.form, self.nearest(pick)))
        elif isinstance(pick, Outermost):
            picked, style = pick.count, self.random.random()
            if answer.members and picked == 1 and query.form == "edge" and style > 0.7:
                tails.append(Tail("edge", choose(_EDGE_TAILS[pick.edge])))
            elif len(answer.members) == 2 and picked == 1 and query.form == "edge" and style < 0.25:
                superlative = _OF_TWO[pick.edge]
            else:
                superlative = choose(_OUTERMOST[pick.edge])
        elif isinstance(pick, Odd | Pair):
            idiom = self.idiom(pick, noun)
        if query.form == "late attribute":  # one tail of the two
            parts = [tail.text for tail in tails]
            self.random.shuffle(parts)
            tails = [Tail(query.form, " and ".join(parts), "must")]
        elif len(tails) > 1 and all(isinstance(condition, Side) for condition in query.filters):
            tails = [Tail("relation", " and ".join(tail.text for tail in tails))]
        return Phrase(
            form=query.form,
            count=len(answer.targets) or (0 if pick is None or idiom else picked),
            universal=query.universal,
            noun=noun,
            adjectives=adjectives,
            complement=complement,
            generic=head.category is None,
            clause=clause,
            tails=tuple(tails),
            superlative=superlative,
            picked=picked,
            without=self.without(query, answer),
            idiom=idiom,
        )

    def description(self, head: Description) -> tuple[Noun, tuple[Adjective, ...], str, str]:
        """Noun, adjectives, complement and clause of a class."""
        properties, random = self.vocabulary.properties, self.random
        before: list[tuple[int, Adjective]] = []
        complement = ""
        for modifier in head.modifiers:
            if modifier.phrase:
                complement = modifier.phrase
                continue
            attribute = properties[modifier.test.attribute]
            value = min(modifier.test.values)
            phrases = attribute.values[value].phrases
            if phrases and not complement and not head.riddle and random.random() < attribute.phrased:
                complement = random.choice(phrases)
            else:
                word = self.word(attribute.words(value))
                before.append((attribute.place, Adjective(modifier.test.attribute, word)))
        before.sort()
        adjectives = [word for _, word in before]
        for at in range(1, len(before)):  # "striped red" and "red striped" are both said
            if properties[adjectives[at].attribute].either_side and random.random() < 0.5:
                adjectives[at - 1 : at + 1] = adjectives[at], adjectives[at - 1]
        clause = ""
        if head.riddle and not adjectives and complement.startswith(("that ", "to ")):
            function = complement.startswith("to ")
            clause = f"something {complement}" if function else f"what {complement.removeprefix('that ')}"
        return self.noun(head), tuple(adjectives), complement, numbered(clause, False)

    def noun(self, head: Description) -> Noun:
        """A word for the class."""
        if head.category is not None:
            if self.vocabulary.flat and self.random.random() < 0.02:
                return Noun(f"{head.category}-shaped object", f"{head.category}-shaped objects")
            return self.weighted(self.vocabulary.nouns(head.category))
        if head.riddle and self.random.random() < 0.27:
            return _ONE
        return self.weighted(self.vocabulary.things)

    def tail(self, query: Query, condition: Filter) -> Tail:
        """How a condition is said after the noun."""
        choose = self.random.choice
        if isinstance(condition, Inside):
            place = choose(_PLACES[condition.region])
            place += "" if query.pick is not None or "of the" in place else choose(_OF_IMAGE)
            return Tail("region", place, "may" if query.pick is None else "never")
        if isinstance(condition, Between):
            ends = f"{self.reference(condition.first)} and {self.reference(condition.second)}"
            return Tail("between", f"between {ends}")
        if isinstance(condition, Is):
            return self.value(query, condition)
        reference = self.reference(condition.reference)
        if isinstance(condition, Side):
            return Tail("relation", f"{choose(_SIDES[condition.side])} {reference}")
        if isinstance(condition, Related):
            words = _RELATIONS.get(condition.name, (condition.name,))
            return Tail(condition.name, f"{choose(words)} {reference}")
        if isinstance(condition, Compared):
            words = _COMPARED[condition.measure, condition.less]
            return Tail("comparison", f"{choose(words)} {reference}")
        name = self.name(condition.attribute)
        return Tail("likeness", f"{choose(('with', 'of'))} the same {name} as {reference}", "never")

    def value(self, query: Query, condition: Is) -> Tail:
        """A value said after the noun: "red", "not red", "neither red nor blue", "without stripes"."""
        values = sorted(condition.values)
        if not condition.negated:
            return Tail(query.form, values[0], "must")
        if len(values) > 1:
            self.random.shuffle(values)
            return Tail(query.form, f"neither {values[0]} nor {values[1]}", "must")
        lacking = self.vocabulary.properties[condition.attribute].values[values[0]].lacking
        if lacking and self.random.random() < 0.25:
            return Tail(query.form, self.random.choice(lacking), "never")
        return Tail(query.form, f"not {values[0]}", "must")

    def nearest(self, pick: Nearest) -> str:
        """The tail of what is nearest."""
        if pick.reference is None:
            return self.random.choice(_FROM_CAMERA if pick.farthest else _TO_CAMERA)
        words = _FARTHEST if pick.farthest else _NEAREST
        return f"{self.random.choice(words)} {self.reference(pick.reference)}"

    def without(self, query: Query, answer: Answer) -> str:
        """What is left out, with its article."""
        if isinstance(query.without, Query):
            return self.reference(query.without)
        if query.without is None:
            return ""
        left = len(answer.members) - len(answer.targets)
        return f"the {min(query.without.values)} one" + "s" * (left > 1)

    def reference(self, query: Query) -> str:
        """A single object with its article: "the ring", "what stands for love", "the biggest thing"."""
        phrase = self.phrase(query, Answer((0,), (0,)))
        if phrase.clause.startswith("what "):
            return phrase.clause
        tail = f" {self.random.choice(('in the middle', 'in the center'))}" if query.filters else ""
        superlative = f"{phrase.superlative} " if phrase.superlative else ""
        return f"the {superlative}{phrase.one}{tail}"

    def idiom(self, pick: Odd | Pair, noun: Noun) -> str:
        """A phrase that does not come apart."""
        if isinstance(pick, Pair):
            return self.random.choice(_PAIRS).format(name=self.name(pick.attribute), many=noun.many)
        if len(pick.attributes) > 1:
            return self.random.choice(_ODD_ANYHOW).format(one=noun.one)
        return self.random.choice(_ODD).format(name=self.name(pick.attributes[0]), one=noun.one)

    def name(self, attribute: str) -> str:
        """What an attribute is called."""
        if attribute == CATEGORY:
            return self.word(self.vocabulary.kind)
        return self.word(self.vocabulary.properties[attribute].names)

    def word(self, words: Sequence[Word]) -> str:
        """One of some words."""
        return (
            words[0].text
            if len(words) == 1
            else self.random.choices(words, [w.weight for w in words])[0].text
        )

    def weighted(self, nouns: Sequence[Noun]) -> Noun:
        """One of some nouns."""
        return self.random.choices(nouns, [noun.weight for noun in nouns])[0]
