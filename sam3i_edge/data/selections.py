"""Ways to choose among the members of a head: by position, relation, size, order, exception.

Each takes an `Ask` and returns a `Draft`, or None where the scene gives no clear answer to what it drew up.
They serve simple instructions (heads with a noun) and complex ones (heads of riddles or "things") alike.
"""

from __future__ import annotations

from typing import Final

from sam3i_edge.data.asking import Ask, Draft
from sam3i_edge.data.geometry import Edge, Measure, Region, Side
from sam3i_edge.data.heads import OUTERMOST, SUPERLATIVES, Head
from sam3i_edge.data.wording import NUMBERS, ORDINALS

LINK: Final = "that [is|are] "

_SIDES: Final[dict[Side, tuple[str, ...]]] = {
    "left": ("left of", "left of", "to the left of", "to the left of", "on the left of"),
    "right": ("right of", "right of", "to the right of", "to the right of", "on the right of"),
    "above": ("above", "above", "above", "higher than", "higher up than"),
    "below": ("below", "below", "below", "under", "beneath", "underneath", "lower than"),
}
_HALVES: Final[dict[Region, tuple[str, ...]]] = {
    "left": ("on the left side", "on the left", "in the left half", "in the left part"),
    "right": ("on the right side", "on the right", "in the right half", "in the right part"),
    "top": ("in the upper half", "in the top half", "in the upper part"),
    "bottom": ("in the lower half", "in the bottom half", "in the lower part"),
}
_PLACES: Final[dict[Region, tuple[str, ...]]] = {
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
_EDGE_TAILS: Final[dict[Edge, tuple[str, ...]]] = {
    "left": ("farthest to the left", "furthest left", "closest to the left edge", "at the far left"),
    "right": ("farthest to the right", "furthest right", "closest to the right edge", "at the far right"),
    "top": ("closest to the top", "at the very top", "nearest the top edge", "highest up"),
    "bottom": ("closest to the bottom", "at the very bottom", "nearest the bottom edge", "lowest down"),
}
_PAIR_WORDS: Final[dict[Edge, str]] = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}
_EDGES: Final[tuple[Edge, ...]] = ("left", "right", "top", "bottom")
_COMPARATIVES: Final[tuple[tuple[str, Measure, bool], ...]] = (
    ("bigger than", "big", False), ("larger than", "big", False), ("smaller than", "big", True),
    ("taller than", "tall", False), ("wider than", "wide", False),
)  # fmt: skip


def whole(ask: Ask) -> Draft | None:
    """Every member, or the only one: "every large square", "the red star", "what stands for love"."""
    head = ask.make_head()
    if head is None:
        return None
    if len(head.members) == 1 and ask.want == "all":
        return Draft(
            f"{ask.random.choice(('every', 'each'))} {head.one}", head.members, head.members, universal=True
        )
    return Draft(ask.word(head, head.members), head.members, head.members)


def by_region(ask: Ask) -> Draft | None:
    """In a half, a corner or the centre."""
    head = ask.make_head()
    if head is None:
        return None
    halves = ask.random.random() < 0.55
    region: Region = ask.random.choice(list(_HALVES if halves else _PLACES))
    targets = ask.view.select(head.members, lambda index: ask.view.inside(index, region))
    if targets is None:
        return None
    tail = ask.random.choice((_HALVES if halves else _PLACES)[region])
    if "of the" not in tail:
        tail += ask.random.choice(_OF_IMAGE)
    return Draft(ask.word(head, targets, tail, LINK), targets, head.members)


def by_edge(ask: Ask) -> Draft | None:
    """Leftmost, topmost, highest: "the topmost blue heart"."""
    head = ask.make_head()
    if head is None or (len(head.members) == 1 and ask.random.random() < 0.8):
        return None
    if ask.want == "subset":
        return _foremost(ask, head)
    word, edge = ask.random.choice(OUTERMOST)
    if not head.members:
        return Draft(f"the {word} {head.one}", (), ())
    target = ask.view.outermost(head.members, edge)
    if target is None:
        return None
    style = ask.random.random()
    if len(head.members) == 2 and style < 0.25:
        text = f"the {_PAIR_WORDS[edge]} {head.one}"
    elif style < 0.7:
        text = f"the {word} {head.one}"
    else:
        text = ask.word(head, (target,), ask.random.choice(_EDGE_TAILS[edge]), LINK)
    return Draft(text, (target,), head.members)


def _foremost(ask: Ask, head: Head) -> Draft | None:
    number = 2 if ask.random.random() < 0.75 else 3
    word, edge = ask.random.choice(OUTERMOST)
    targets = ask.view.foremost(head.members, edge, number)
    if targets is None:
        return None
    return Draft(f"the {NUMBERS[number]} {word} {head.many}", targets, head.members)


def by_relation(ask: Ask) -> Draft | None:
    """Left of, right of, above or below one other object, or two such relations at once."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    side: Side = ask.random.choice(list(_SIDES))
    tail = f"{ask.random.choice(_SIDES[side])} {reference.text}"
    if reference.index is None:
        return Draft(ask.word(head, (), tail, LINK), (), head.members)
    anchor = reference.index
    members = tuple(index for index in head.members if index != anchor)
    targets = ask.view.select(members, lambda index: ask.view.beside(index, side, anchor))
    if targets is None:
        return None
    if ask.random.random() < 0.15:
        second = ask.make_reference()
        across: Side = ask.random.choice(
            ("above", "below") if side in ("left", "right") else ("left", "right")
        )
        if second is None or second.index is None or second.index == anchor:
            return None
        mark = second.index
        targets = ask.view.select(
            (i for i in targets if i != mark), lambda i: ask.view.beside(i, across, mark)
        )
        if targets is None:
            return None
        tail += f" and {ask.random.choice(_SIDES[across])} {second.text}"
    return Draft(ask.word(head, targets, tail, LINK), targets, head.members)


def by_late_color(ask: Ask) -> Draft | None:
    """Colour after the relation: "the star that is left of the ring and red"."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None or reference.index is None or not head.members:
        return None
    color = ask.view.objects[
        ask.random.choice(ask.view.everything if ask.want == "none" else head.members)
    ].color
    side: Side = ask.random.choice(list(_SIDES))
    anchor = reference.index
    members = tuple(i for i in head.members if ask.view.objects[i].color == color and i != anchor)
    targets = ask.view.select(members, lambda index: ask.view.beside(index, side, anchor))
    if targets is None:
        return None
    relation = f"{ask.random.choice(_SIDES[side])} {reference.text}"
    both = f"{relation} and {color}" if ask.random.random() < 0.5 else f"{color} and {relation}"
    return Draft(ask.word(head, targets, f"that [is|are] {both}"), targets, head.members)


def by_between(ask: Ask) -> Draft | None:
    """Between two other objects."""
    head, first, second = ask.make_head(), ask.make_reference(), ask.make_reference()
    if head is None or first is None or second is None or first.text == second.text:
        return None
    tail = f"between {first.text} and {second.text}"
    if first.index is None or second.index is None:
        return Draft(ask.word(head, (), tail, LINK), (), head.members)
    a, b = first.index, second.index
    if a == b:
        return None
    members = tuple(index for index in head.members if index not in (a, b))
    targets = ask.view.select(members, lambda index: ask.view.between(index, a, b))
    return None if targets is None else Draft(ask.word(head, targets, tail, LINK), targets, members)


def by_distance(ask: Ask) -> Draft | None:
    """Nearest to or farthest from another object."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    far = ask.random.random() < 0.25
    words = ("farthest from", "furthest from", "farthest away from") if far else ("nearest to", "closest to")
    tail = f"{ask.random.choice(words)} {reference.text}"
    if reference.index is None or not head.members:
        return Draft(ask.word(head, (0,), tail, LINK), (), head.members)
    members = tuple(index for index in head.members if index != reference.index)
    target = ask.view.nearest(members, reference.index, far)
    if target is None or (len(members) == 1 and ask.random.random() < 0.7):
        return None
    return Draft(ask.word(head, (target,), tail, LINK), (target,), head.members)


def by_size(ask: Ask) -> Draft | None:
    """Biggest, smallest, tallest …, in all or on one side of the picture."""
    head = ask.make_head()
    if head is None or (len(head.members) == 1 and ask.random.random() < 0.8):
        return None
    word, measure, least = ask.random.choice(SUPERLATIVES)
    members, tail = head.members, ""
    if ask.random.random() < (0.4 if head.thing or ask.want == "none" else 0.15):
        region: Region = ask.random.choice(list(_HALVES))
        inside = ask.view.select(head.members, lambda index: ask.view.inside(index, region))
        if inside is None:
            return None
        members, tail = inside, f" {ask.random.choice(_HALVES[region])}"
    text = f"the {word} {head.one}{tail}"
    if not members:
        return Draft(text, (), head.members)
    target = ask.view.superlative(members, measure, least)
    return None if target is None else Draft(text, (target,), head.members)


def by_comparison(ask: Ask) -> Draft | None:
    """Bigger, smaller, taller or wider than another object."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    word, measure, less = ask.random.choice(_COMPARATIVES)
    tail = f"{word} {reference.text}"
    if reference.index is None:
        return Draft(ask.word(head, (), tail, LINK), (), head.members)
    anchor = reference.index
    members = tuple(index for index in head.members if index != anchor)
    targets = ask.view.select(members, lambda index: ask.view.exceeds(index, anchor, measure, less))
    return None if targets is None else Draft(ask.word(head, targets, tail, LINK), targets, members)


def by_exception(ask: Ask) -> Draft | None:
    """All but one or some of them: "all circles except the green one"."""
    head = ask.head(ask.view, ask.random, False)
    if head is None or len(head.members) < 2:
        return None
    if head.thing:
        reference = ask.reference(ask.view, ask.random, False)
        if reference is None or reference.index is None:
            return None
        excluded, text = {reference.index}, reference.text
    else:
        key = ask.random.choice(("color", "color", "size", "fill"))
        values = [getattr(ask.view.objects[index], key) for index in head.members]
        value = ask.random.choice(values)
        if value in head.one:  # "all red circles except the red one"
            return None
        excluded = {i for i, other in zip(head.members, values, strict=True) if other == value}
        text = f"the {value} one" + "s" * (len(excluded) > 1)
    targets = tuple(index for index in head.members if index not in excluded)
    word = ask.random.choice(("except", "except", "except for", "but", "but not", "apart from"))
    start = ask.random.choice(
        (f"all {head.many}", f"all {head.many}", f"every {head.one}", f"all the {head.many}")
        if not head.thing or ask.random.random() < 0.4
        else ("everything", "everything", "all")
    )
    return Draft(f"{start} {word} {text}", targets, head.members)


def by_order(ask: Ask) -> Draft | None:
    """The second from the left."""
    head = ask.make_head()
    if head is None or (head.members and len(head.members) < 3):
        return None
    edge = ask.random.choice(_EDGES)
    number = ask.random.randint(1, 3) if ask.random.random() < 0.85 else 4
    tail = f"from the {edge}"
    text = f"the {ORDINALS[number]} {head.one} {tail}"
    if not head.members:
        return Draft(text, (), ())
    target = ask.view.ordinal(head.members, edge, number)
    return None if target is None else Draft(text, (target,), head.members)


def by_likeness(ask: Ask) -> Draft | None:
    """Of the same colour, shape or fill as another object."""
    head, reference = ask.make_head(), ask.make_reference()
    if head is None or reference is None:
        return None
    key = ask.random.choice(("color", "color", "color", "shape") if head.thing else ("color",))
    noun = "colour" if key == "color" and ask.random.random() < 0.15 else key
    if reference.index is not None and reference.index in head.members and not head.thing:
        return None
    members = tuple(index for index in head.members if index != reference.index)
    tail = f"{ask.random.choice(('with', 'of'))} the same {noun} as {reference.text}"
    if reference.index is None:
        return Draft(ask.word(head, (), tail), (), head.members)
    anchor = ask.view.objects[reference.index]
    targets = tuple(i for i in members if getattr(ask.view.objects[i], key) == getattr(anchor, key))
    if not head.thing:
        return Draft(ask.word(head, targets, tail), targets, head.members)
    several = ("everything else", f"all other {head.many}", f"the other {head.many}")
    start = f"the other {head.one}" if len(targets) == 1 else ask.random.choice(several)
    return Draft(f"{start} {tail}", targets, head.members)
