"""Ways to choose among the members of a head: by position, relation, size, order, exception.

Each takes an `Ask` and proposes a `Query`, or None where the scene gives no occasion for what it drew up;
whether it has an answer is for `truth` to say. They serve simple instructions (heads with a noun) and complex
ones (heads of riddles or "things") alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, get_args

from sam3i_edge.data.heads import Ask, Reference
from sam3i_edge.data.query import (
    Alike,
    Between,
    Compared,
    Description,
    Filter,
    Inside,
    Measure,
    Nearest,
    Ordinal,
    Outermost,
    Query,
    Region,
    Related,
    Side,
    SideName,
)
from sam3i_edge.data.vocabulary import CATEGORY

Kind: TypeAlias = Callable[[Ask], "Query | None"]

HALVES: Final[tuple[Region, ...]] = ("left", "right", "top", "bottom")
_PLACES: Final[tuple[Region, ...]] = ("top left", "top right", "bottom left", "bottom right", "center")
_COMPARISONS: Final[dict[tuple[Measure, bool], int]] = {
    ("big", False): 2, ("big", True): 1, ("tall", False): 1, ("wide", False): 1,
}  # fmt: skip


def whole(ask: Ask) -> Query | None:
    """Every member, or the only one: "every large square", "the red star", "what stands for love"."""
    head = ask.make_head()
    if head is None:
        return None
    form = "whole"
    if head.riddle:
        form = "function" if any(modifier.function for modifier in head.modifiers) else "property"
    return Query(form=form, head=head, universal=ask.want == "all")


def by_region(ask: Ask) -> Query | None:
    """In a half, a corner or the centre."""
    head = ask.make_head()
    region = ask.random.choice(HALVES if ask.random.random() < 0.55 else _PLACES)
    return None if head is None else Query(form="region", head=head, filters=(Inside(region),))


def by_edge(ask: Ask) -> Query | None:
    """Leftmost, topmost: "the topmost blue heart", "the two leftmost stars"."""
    head = ask.make_head()
    if head is None or _too_few(ask, head, 2):
        return None
    count = 1
    if ask.want == "subset":
        count = 2 if ask.random.random() < 0.75 else 3
    return Query(form="edge", head=head, pick=Outermost(ask.edge(), count))


def by_relation(ask: Ask) -> Query | None:
    """Left of, right of, above or below one other object, or two such relations at once."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    side = _side(ask)
    filters: tuple[Filter, ...] = (Side(side, reference.query),)
    if ask.vocabulary.flat and reference.index is not None and ask.random.random() < 0.15:
        second = ask.make_reference()
        across: SideName = ask.random.choice(
            ("above", "below") if side in ("left", "right") else ("left", "right")
        )
        if second is None or second.index is None or second.index == reference.index:
            return None
        filters += (Side(across, second.query),)
    return Query(form="relation", head=head, filters=filters)


def by_known_relation(ask: Ask) -> Query | None:
    """On, in, next to, behind, in front of: where the scene says that something is."""
    met: dict[str, list[tuple[int, int]]] = {}
    for subject, item in enumerate(ask.view.objects):
        for name, verdicts in item.relations.items():
            met.setdefault(name, []).extend(
                (subject, other) for other, verdict in verdicts.items() if verdict
            )
    names = [name for name, pairs in met.items() if pairs]
    if not names:
        return None
    name = ask.random.choice(names)
    subject, other = ask.random.choice(met[name])
    miss = ask.want == "none"  # nobody asks for bread in a ball: what is missed is one of the two words
    reference = ask.reference(ask, miss and ask.random.random() < 0.3, other)
    head = ask.head(ask, miss, subject)
    if head is None or reference is None:
        return None
    return Query(form=name, head=head, filters=(Related(name, reference.query),))


def by_late_attribute(ask: Ask) -> Query | None:
    """Colour after the relation: "the star that is left of the ring and red"."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None or reference.index is None:
        return None
    members = ask.members(head)
    name = next(iter(ask.vocabulary.properties), None)
    if not members or name is None:
        return None
    value = ask.value(name, ask.random.choice(ask.view.everything if ask.want == "none" else members))
    if value is None:
        return None
    late = (Side(_side(ask), reference.query), ask.test(name, value))
    return Query(form="late attribute", head=head, filters=late)


def by_between(ask: Ask) -> Query | None:
    """Between two other objects."""
    head, first, second = ask.make_head(), ask.make_reference(), ask.make_reference()
    if head is None or first is None or second is None or first.query == second.query:
        return None
    if first.index is not None and first.index == second.index:
        return None
    return Query(form="between", head=head, filters=(Between(first.query, second.query),))


def by_distance(ask: Ask) -> Query | None:
    """Nearest to or farthest from another object."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    members = ask.members(head)
    if members is None or (len(set(members) - {reference.index}) == 1 and ask.random.random() < 0.7):
        return None
    return Query(form="distance", head=head, pick=Nearest(reference.query, ask.random.random() < 0.25))


def by_depth(ask: Ask) -> Query | None:
    """Nearest to the camera, or farthest from it."""
    head = ask.make_head()
    if head is None or _too_few(ask, head, 2):
        return None
    return Query(form="depth", head=head, pick=Nearest(None, ask.random.random() < 0.35))


def by_size(ask: Ask) -> Query | None:
    """Biggest, smallest, tallest …, in all or on one side of the picture."""
    head = ask.make_head()
    if head is None or _sized(head) or _too_few(ask, head, 2):
        return None
    inside = ask.random.random() < (0.4 if head.thing or ask.want == "none" else 0.15)
    filters = (Inside(ask.random.choice(HALVES)),) if inside else ()
    return Query(form="size", head=head, filters=filters, pick=ask.superlative())


def by_comparison(ask: Ask) -> Query | None:
    """Bigger, smaller, taller or wider than another object."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None or _sized(head):
        return None
    choices = {key: weight for key, weight in _COMPARISONS.items() if ask.vocabulary.flat or key[0] == "big"}
    measure, less = ask.random.choices(list(choices), list(choices.values()))[0]
    return Query(form="comparison", head=head, filters=(Compared(measure, less, reference.query),))


def by_exception(ask: Ask) -> Query | None:
    """All but one or some of them: "all circles except the green one"."""
    head = ask.head(ask, False)
    if head is None:
        return None
    members = ask.members(head)
    if members is None or len(members) < 2:
        return None
    if head.thing:
        reference = ask.reference(ask, False)
        if reference is None or reference.index is None:
            return None
        return Query(form="exception", head=head, without=reference.query)
    shares = {name: attribute.share for name, attribute in ask.vocabulary.properties.items()}
    if not shares:
        return None
    name = ask.random.choices(list(shares), list(shares.values()))[0]
    value = ask.value(name, ask.random.choice(members))
    if value is None or any(name == modifier.test.attribute for modifier in head.modifiers):
        return None  # "all red circles except the red one"
    return Query(form="exception", head=head, without=ask.test(name, value))


def by_order(ask: Ask) -> Query | None:
    """The second from the left."""
    head = ask.make_head()
    if head is None or _too_few(ask, head, 3, 0.0):
        return None
    number = ask.random.randint(1, 3) if ask.random.random() < 0.85 else 4
    edges = HALVES if ask.vocabulary.flat else ("left", "right")
    return Query(form="order", head=head, pick=Ordinal(ask.random.choice(edges), number))  # type: ignore[arg-type]


def by_likeness(ask: Ask) -> Query | None:
    """Of the same colour, shape or kind as another object."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    names = [name for name, attribute in ask.vocabulary.properties.items() if attribute.alike]
    name = CATEGORY if head.thing and ask.random.random() < 0.25 else ask.random.choice(names or [CATEGORY])
    if name == CATEGORY and not head.thing:
        return None
    if not head.thing and reference.index is not None and reference.index in (ask.members(head) or ()):
        return None
    return Query(
        form="likeness", head=head, filters=(Alike(name, reference.query, _like(ask, reference, name)),)
    )


def _sized(head: Description) -> bool:
    """Whether its name says a size already: nobody asks for the biggest little one."""
    return any(modifier.test.attribute == "size" for modifier in head.modifiers)


def _like(ask: Ask, reference: Reference, name: str) -> frozenset[str]:
    if name != CATEGORY:
        return ask.test(name).unclear
    if reference.index is None:
        return frozenset()
    return ask.unclear(ask.view.objects[reference.index].category)


def _side(ask: Ask) -> SideName:
    sides: tuple[SideName, ...] = get_args(SideName) if ask.vocabulary.flat else ("left", "right")
    return ask.random.choice(sides)


def _too_few(ask: Ask, head: Description, least: int, tolerated: float = 0.2) -> bool:
    """Whether a class is unknown or has members, but too few to choose among; now and then these will do."""
    members = ask.members(head)
    if members is None:
        return True
    return 0 < len(members) < least and ask.random.random() >= tolerated
