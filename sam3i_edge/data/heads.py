"""Heads of instructions: classes of objects to speak of ("red star", "thing with a hole"), and references."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from sam3i_edge.data.geometry import View
from sam3i_edge.data.query import (
    Description,
    Edge,
    Inside,
    Is,
    Largest,
    Measure,
    Modifier,
    Outermost,
    Query,
)
from sam3i_edge.data.truth import Answer, Granularity, answer, guess
from sam3i_edge.data.vocabulary import CATEGORY, Vocabulary

# How often each is asked for where words of all of them fit.
SUPERLATIVES: Final[dict[tuple[Measure, bool], int]] = {
    ("big", False): 3, ("big", True): 3, ("tall", False): 2, ("tall", True): 1, ("wide", False): 1,
    ("wide", True): 1,
}  # fmt: skip
EDGES: Final[dict[Edge, int]] = {"left": 1, "right": 1, "top": 3, "bottom": 2}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a kind of instruction works with.

    Attributes:
        view: the scene.
        vocabulary: its words.
        random: decides.
        want: the granularity looked for; kinds use it to propose what is likely to have it.
        certain: whether the answer must be certain, or must not be.
        head: makes heads.
        reference: makes references.
    """

    view: View
    vocabulary: Vocabulary
    random: Random
    want: Granularity
    certain: bool
    head: HeadMaker
    reference: ReferenceMaker

    def make_head(self) -> Description | None:
        """A head; where nothing is to be found, a near miss half of the time."""
        return self.head(self, self.want == "none" and self.random.random() < 0.55)

    def make_reference(self) -> Reference | None:
        """A reference; where nothing is to be found, an absent one at times."""
        return self.reference(self, self.want == "none" and self.random.random() < 0.4)

    def answer(self, query: Query) -> Answer | None:
        """The answer to go on with."""
        return (answer if self.certain else guess)(query, self.view)

    def members(self, head: Description) -> tuple[int, ...] | None:
        """The class of a head; None where it is not known."""
        found = self.answer(Query(form="whole", head=head))
        return None if found is None else found.targets

    def superlative(self) -> Largest:
        """A measure. On photographs what is tall or wide depends on where one looks from, so only size."""
        if not self.vocabulary.flat:
            return Largest("big", self.random.random() < 0.5)
        return Largest(*self.random.choices(list(SUPERLATIVES), list(SUPERLATIVES.values()))[0])

    def edge(self) -> Edge:
        """An edge. What is near the top of a photograph is rather far away than high up."""
        edges: dict[Edge, int] = EDGES if self.vocabulary.flat else {"left": 1, "right": 1}
        return self.random.choices(list(edges), list(edges.values()))[0]

    def value(self, attribute: str, index: int) -> str | None:
        """An object's value of an attribute if the vocabulary has words for it."""
        value = self.view.objects[index].attributes.get(attribute)
        return value if value in self.vocabulary.properties[attribute].values else None

    def test(self, attribute: str, *values: str, negated: bool = False) -> Is:
        """A test of a property; what the vocabulary has no word for ("maroon") could pass for any value."""
        known = self.vocabulary.properties[attribute].values
        present = {item.attributes.get(attribute) for item in self.view.objects}
        strange = frozenset(value for value in present if value is not None and value not in known)
        return Is(attribute, frozenset(values), strange, negated)

    def unclear(self, category: str) -> frozenset[str]:
        """The categories that a noun of this one might also mean.

        A category that the vocabulary does not know is taken for another one, but for its last word: the
        noun "bottle" may mean a "wine bottle".
        """
        confusable = frozenset(self.vocabulary.confusable(category))
        strangers = self.strangers()
        if not strangers and category in self.vocabulary.categories:
            return confusable
        last = {noun.one.split()[-1] for noun in self.vocabulary.nouns(category)}
        others = strangers if category in self.vocabulary.categories else self._categories()
        return confusable | {
            other for other in others if other != category and _last_words(self.vocabulary, other) & last
        }

    def strangers(self) -> frozenset[str]:
        """Categories in the scene that the vocabulary does not know."""
        return self._categories() - self.vocabulary.categories.keys()

    def _categories(self) -> frozenset[str]:
        return frozenset(item.category for item in self.view.objects)


class HeadMaker(Protocol):
    """Makes heads."""

    def __call__(self, ask: Ask, miss: bool, about: int | None = None, /) -> Description | None:
        """The class of some object, or of the one `about`; `miss`: whether a near miss is welcome."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A single object that an instruction refers to.

    Attributes:
        query: what is said of it.
        index: the object, or None where the scene holds none such.
    """

    query: Query
    index: int | None


class ReferenceMaker(Protocol):
    """Makes references."""

    def __call__(self, ask: Ask, absent: bool, about: int | None = None, /) -> Reference | None:
        """To some object, or to the one `about`; `absent`: whether there need not be one."""


def noun_head(
    ask: Ask, miss: bool, about: int | None = None, /, *, rich: float = 1.0, generic: float = 0.08
) -> Description | None:
    """A noun phrase for an object of the scene, or, as a near miss, with one word changed.

    Args:
        ask: the scene and what decides.
        miss: whether to change one of the words; the result may still have members.
        about: the object to describe; None takes any.
        rich: scales the chance of adjectives; 0 gives the bare noun.
        generic: chance of "thing" or the like in place of the noun, with at least one adjective.
    """
    random, properties = ask.random, ask.vocabulary.properties
    if not ask.view.objects:
        absent = _absent(ask, None)
        return Description(absent) if miss and absent is not None else None
    index = random.choice(ask.view.everything) if about is None else about
    category: str | None = ask.view.objects[index].category
    wanted: dict[str, str] = {}
    for name, attribute in properties.items():
        value = ask.value(name, index)
        if value is not None and value != category and random.random() < rich * attribute.share_of(value):
            wanted[name] = value
    if rich and random.random() < generic:
        known = {name: value for name in properties if (value := ask.value(name, index)) is not None}
        wanted = wanted or dict(list(known.items())[:1])
        category = None if wanted else category
    if miss:
        changed = random.choice([*wanted, *([CATEGORY] if category is not None else [])])
        if changed == CATEGORY:
            category = _absent(ask, category)
            if category is None:
                return None
        else:
            others = [value for value in ask.vocabulary.attributes[changed] if value != wanted[changed]]
            wanted[changed] = random.choice(others)
    modifiers = tuple(Modifier(ask.test(name, value)) for name, value in wanted.items())
    if category is None:
        return Description(modifiers=modifiers)
    return Description(category, ask.unclear(category), modifiers)


def bare_head(ask: Ask, miss: bool, about: int | None = None, /) -> Description | None:
    """The bare noun of an object; as a near miss the noun of a category that is absent or rare."""
    return noun_head(ask, miss, about, rich=0.0, generic=0.0)


def thing_head(ask: Ask, miss: bool, about: int | None = None, /) -> Description:
    """Everything there is: "thing", "object"."""
    return Description()


def riddle_head(ask: Ask, miss: bool, about: int | None = None, /) -> Description | None:
    """A class of objects without its noun: by property, function, or what it is like."""
    random, vocabulary = ask.random, ask.vocabulary
    if not ask.view.objects:
        return None
    index = random.choice(ask.view.everything) if about is None else about
    elsewhere = miss and random.random() < 0.5
    weights = {name: attribute.riddles for name, attribute in vocabulary.properties.items()}
    told = random.choices([CATEGORY, *weights], [float(bool(vocabulary.riddles)), *weights.values()])[0]
    if told == CATEGORY:
        category = random.choice(list(vocabulary.categories)) if elsewhere else None
        fitting = vocabulary.riddles_of(category or ask.view.objects[index].category)
        if not fitting:
            return None
        riddle = random.choice(fitting)
        unclear = frozenset(riddle.unclear) | ask.strangers()
        test = Is(CATEGORY, frozenset(riddle.categories), unclear)
        modifier = Modifier(test, random.choice(riddle.phrases), riddle.kind == "function")
    else:
        value = random.choice(vocabulary.attributes[told]) if elsewhere else ask.value(told, index)
        if value is None:
            return None
        modifier = _attribute_riddle(ask, told, value)
    adjectives = tuple[Modifier, ...]()
    # A riddle of the fill goes with a size, and with no second word for what it is like.
    free = [name for name, weight in weights.items() if told == CATEGORY or not weight]
    others = [name for name in free if ask.value(name, index) is not None]
    if others and random.random() < 0.3:
        name = random.choice(others)
        changed = miss and random.random() < 0.6
        value = random.choice(vocabulary.attributes[name]) if changed else ask.value(name, index)
        adjectives = (Modifier(ask.test(name, str(value))),)
    return Description(modifiers=(*adjectives, modifier))


def noun_reference(ask: Ask, absent: bool, about: int | None = None, /) -> Reference | None:
    """The only object of a noun phrase, as briefly named as can be at times."""
    head = noun_head(ask, absent, about, rich=ask.random.choice((0.0, 0.7)), generic=0.02)
    return None if head is None else _only(ask, Query(form="reference", head=head), absent)


def riddle_reference(ask: Ask, absent: bool, about: int | None = None, /) -> Reference | None:
    """The only object of a riddle, or the tallest, widest, biggest, smallest, leftmost … thing of all."""
    if about is not None or ask.random.random() < 0.45:
        head = riddle_head(ask, absent, about)
        return None if head is None else _only(ask, Query(form="reference", head=head), absent)
    if absent or len(ask.view.objects) < 2:
        return None
    if ask.random.random() < 0.15:
        query = Query(form="reference", head=Description(), filters=(Inside("center"),))
    elif ask.random.random() < 0.65:
        query = Query(form="reference", head=Description(), pick=ask.superlative())
    else:
        query = Query(form="reference", head=Description(), pick=Outermost(ask.edge()))
    return _only(ask, query, False)


def _only(ask: Ask, query: Query, absent: bool) -> Reference | None:
    found = ask.answer(query)
    if found is None or len(found.targets) > 1 or not (found.targets or absent):
        return None
    return Reference(query, found.targets[0] if found.targets else None)


def _absent(ask: Ask, category: str | None) -> str | None:
    """Another category of which it is known whether it is there; None where there is none."""
    scene = ask.view.scene
    known = (
        name
        for name in ask.vocabulary.categories
        if scene.complete or name in scene.listed or not ask.certain
    )
    others = [name for name in known if name != category]
    return ask.random.choice(others) if others else None


def _attribute_riddle(ask: Ask, name: str, value: str) -> Modifier:
    attribute, random = ask.vocabulary.properties[name], ask.random
    entry = attribute.values[value]
    groups = [group for group in attribute.groups if value in group.values]
    if groups and random.random() < 0.2:
        group = random.choice(groups)
        return Modifier(ask.test(name, *group.values), random.choice(group.phrases))
    if entry.like:
        phrase = random.choice(attribute.likened).format(random.choice(entry.like))
    else:
        phrase = random.choice(entry.phrases + entry.hints)
    return Modifier(ask.test(name, value), phrase)


def _last_words(vocabulary: Vocabulary, category: str) -> set[str]:
    return {noun.one.split()[-1] for noun in vocabulary.nouns(category)}
