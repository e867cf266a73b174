"""Kinds of complex queries that need a look at the whole scene: negation, the odd one out, pairs."""

from __future__ import annotations

from typing import Final

from sam3i_edge.data.heads import Ask
from sam3i_edge.data.query import Description, Odd, Pair, Query
from sam3i_edge.data.truth import value_of
from sam3i_edge.data.vocabulary import CATEGORY

_ANYHOW: Final = 0.3  # how often what is odd in one way only is just called odd


def odd_one_out(ask: Ask) -> Query | None:
    """The one object that differs in a property in which all others, at least two, are equal."""
    if len(ask.view.objects) < 3:
        return None
    odd: dict[str, int] = {}
    equal = []
    for name in _comparable(ask):
        values = [value_of(item, name) for item in ask.view.objects]
        rare = [index for index, value in enumerate(values) if values.count(value) == 1]
        if len(set(values)) == 1:
            equal.append(name)
        elif len(set(values)) == 2 and rare:
            odd[name] = rare[0]
    names = equal if ask.want == "none" else list(odd)
    if not names:
        return None
    attributes: tuple[str, ...] = (ask.random.choice(names),)
    alone = len(odd) + len(equal) == len(ask.vocabulary.attributes) and len(set(odd.values())) == 1
    if ask.want != "none" and alone and ask.random.random() < _ANYHOW:
        attributes = tuple(ask.vocabulary.attributes)
    return Query(form="odd one out", head=Description(), pick=Odd(attributes))


def matching_pair(ask: Ask) -> Query | None:
    """The only two objects that share a colour or a shape."""
    names = [name for name in _comparable(ask) if name == CATEGORY or ask.vocabulary.properties[name].alike]
    if len(ask.view.objects) < 3 or not names:
        return None
    return Query(form="matching pair", head=Description(), pick=Pair(ask.random.choice(names)))


def negation(ask: Ask) -> Query | None:
    """Everything that lacks a colour, a size or a fill: "everything that is not red"."""
    shares = {name: attribute.share for name, attribute in ask.vocabulary.properties.items()}
    if not shares or not ask.view.objects:
        return None
    name = ask.random.choices(list(shares), list(shares.values()))[0]
    value = ask.value(name, ask.random.choice(ask.view.everything))
    attribute = ask.vocabulary.properties[name]
    if value is None or attribute.share_of(value) < attribute.share:  # nobody says "not plain"
        return None
    values = {value}
    if attribute.alike and ask.random.random() < 0.2:
        values.add(ask.value(name, ask.random.choice(ask.view.everything)) or value)
    without = ask.test(name, *values, negated=True)
    return Query(form="negation", head=Description(), filters=(without,))


def _comparable(ask: Ask) -> list[str]:
    """The attributes in which all objects can be told apart: no mug beside a cup, no maroon beside red."""
    present = {item.category for item in ask.view.objects}
    clear = present <= ask.vocabulary.categories.keys() and not any(
        present & ask.unclear(category) for category in present
    )
    return [
        name
        for name in ask.vocabulary.attributes
        if (clear if name == CATEGORY else not ask.test(name).unclear)
    ]
