"""Heads of phrases: a class of objects ("red star", "thing with a hole"), words, members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from sam3i_edge.data.geometry import Edge, Measure, View
from sam3i_edge.data.palette import COLORS, FILLS
from sam3i_edge.data.scenes import SIZES, SceneObject
from sam3i_edge.data.shapes import SHAPES
from sam3i_edge.data.wording import (
    ADJECTIVES,
    FILL_PHRASES,
    FILL_RIDDLES,
    LIKE,
    LIKE_PHRASES,
    NOUNS,
    PATTERNED,
    RIDDLES,
    THINGS,
    numbered,
)


@dataclass(frozen=True, slots=True)
class Head:
    """A class of objects in a scene.

    Attributes:
        one: words for one of them, to follow "the": "red star", "thing with a hole".
        many: words for several: "red stars".
        members: indices of the objects in it; may be empty.
        thing: whether it is only "thing" or the like, so that "everything" can stand for it.
        clause: a noun clause that needs no article, "what stands for love", or "".
    """

    one: str
    many: str
    members: tuple[int, ...]
    thing: bool = False
    clause: str = ""


HeadMaker = Callable[[View, Random, bool], Head | None]  # the bool: whether a near miss is welcome

_VALUES: Final[dict[str, tuple[str, ...]]] = {"color": COLORS, "size": SIZES, "fill": FILLS, "shape": SHAPES}


def noun_head(
    view: View,
    random: Random,
    miss: bool,
    *,
    rich: float = 1.0,
    generic: float = 0.08,
    base: int | None = None,
) -> Head:
    """A noun phrase for an object of the scene, or, as a near miss, with one word changed.

    Args:
        view: the scene.
        random: decides.
        miss: whether to change one of the words; the result may still have members.
        rich: scales the chance of adjectives; 0 gives the bare noun.
        generic: chance of "shape", "thing" or "object" in place of the noun, with at least one adjective.
        base: index of the object to describe; None takes any.
    """
    item = view.objects[random.choice(view.everything) if base is None else base]
    wanted: dict[str, str] = {}
    if random.random() < 0.5 * rich:
        wanted["color"] = item.color
    if random.random() < 0.2 * rich:
        wanted["size"] = item.size
    if random.random() < (0.06 if item.fill == "plain" else 0.3) * rich:
        wanted["fill"] = item.fill
    if random.random() < generic and rich:
        if not wanted:
            wanted["color"] = item.color
    else:
        wanted["shape"] = item.shape
    if miss:
        changed = random.choice(list(wanted))
        wanted[changed] = random.choice([value for value in _VALUES[changed] if value != wanted[changed]])
    members = tuple(index for index in view.everything if _fits(view.objects[index], wanted))
    one, many = _noun_phrase(wanted, random)
    return Head(one, many, members, thing=False)


def shape_head(view: View, random: Random, miss: bool) -> Head:
    """The bare noun of an object; as a near miss the noun of a shape that is absent or rare."""
    return noun_head(view, random, miss, rich=0.0, generic=0.0)


def thing_head(view: View, random: Random, miss: bool) -> Head:
    """Everything there is: "thing", "object", "shape"."""
    one, many = random.choice(THINGS)
    return Head(one, many, view.everything, thing=True)


def riddle_head(view: View, random: Random, miss: bool) -> Head | None:
    """A class of objects without its noun: by property, function, association of shape, colour or fill."""
    item = view.objects[random.choice(view.everything)]
    if miss and random.random() < 0.5:
        wanted_shape, wanted_color, wanted_fill = (
            random.choice(SHAPES),
            random.choice(COLORS),
            random.choice(FILLS),
        )
    else:
        wanted_shape, wanted_color, wanted_fill = item.shape, item.color, item.fill
    members = view.everything
    kind = random.random()
    if kind < 0.66:
        riddle = random.choice([riddle for riddle in RIDDLES if wanted_shape in riddle.shapes])
        if any(entry.shape in riddle.unclear for entry in view.objects):
            return None
        members = tuple(i for i in members if view.objects[i].shape in riddle.shapes)
        phrase = random.choice(riddle.phrases)
    elif kind < 0.86:
        members = tuple(i for i in members if view.objects[i].color == wanted_color)
        phrase = random.choice(LIKE_PHRASES).format(random.choice(LIKE[wanted_color]))
    elif kind < 0.97 or wanted_fill == "plain":
        members = tuple(i for i in members if view.objects[i].fill == wanted_fill)
        phrase = random.choice(FILL_PHRASES[wanted_fill] + FILL_RIDDLES.get(wanted_fill, ()))
    else:
        members = tuple(i for i in members if view.objects[i].fill != "plain")
        phrase = random.choice(PATTERNED)
    one, many = random.choice((*THINGS, ("one", "ones"), ("one", "ones"), ("one", "ones")))
    adjective = ""
    if random.random() < 0.3:
        key = random.choice(["color", "size", "fill"] if kind < 0.66 else ["size"])
        value = getattr(item, key) if not miss or random.random() < 0.4 else random.choice(_VALUES[key])
        members = tuple(i for i in members if getattr(view.objects[i], key) == value)
        adjective = f"{random.choice(ADJECTIVES.get(value, (value,)))} "
    clause = ""
    if phrase.startswith("that ") and not adjective:
        clause = numbered("what " + phrase.removeprefix("that "), False)
    return Head(
        f"{adjective}{one} {numbered(phrase, False)}",
        f"{adjective}{many} {numbered(phrase, True)}",
        members,
        clause=clause,
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """A single object that a phrase refers to.

    Attributes:
        text: with its article, "the ring".
        index: the object, or None where the scene holds none such.
    """

    text: str
    index: int | None


ReferenceMaker = Callable[[View, Random, bool], Reference | None]  # the bool: whether it may be absent


def noun_reference(view: View, random: Random, absent: bool) -> Reference | None:
    """The only object of a noun phrase, as briefly named as can be at times."""
    head = noun_head(view, random, absent, rich=random.choice((0.0, 0.7)), generic=0.02)
    return _only(head, absent)


def riddle_reference(view: View, random: Random, absent: bool) -> Reference | None:
    """The only object of a riddle, or the tallest, widest, biggest, smallest, leftmost … thing of all."""
    if random.random() < 0.45:
        head = riddle_head(view, random, absent)
        return None if head is None else _only(head, absent)
    if absent or len(view.objects) < 2:
        return None
    noun = random.choice((*THINGS, ("one", "ones")))[0]
    if random.random() < 0.15:
        inside = view.select(view.everything, lambda index: view.inside(index, "center"))
        if inside is None or len(inside) != 1:
            return None
        return Reference(f"the {noun} in the {random.choice(('middle', 'center'))}", inside[0])
    if random.random() < 0.65:
        word, measure, least = random.choice(SUPERLATIVES)
        index = view.superlative(view.everything, measure, least)
    else:
        word, edge = random.choice(OUTERMOST)
        index = view.outermost(view.everything, edge)
    return None if index is None else Reference(f"the {word} {noun}", index)


SUPERLATIVES: Final[tuple[tuple[str, Measure, bool], ...]] = (
    ("biggest", "big", False), ("biggest", "big", False), ("largest", "big", False),
    ("smallest", "big", True), ("smallest", "big", True), ("tiniest", "big", True),
    ("tallest", "tall", False), ("tallest", "tall", False), ("widest", "wide", False),
    ("shortest", "tall", True), ("narrowest", "wide", True),
)  # fmt: skip
OUTERMOST: Final[tuple[tuple[str, Edge], ...]] = (
    ("leftmost", "left"), ("rightmost", "right"), ("topmost", "top"), ("bottommost", "bottom"),
    ("highest", "top"), ("lowest", "bottom"), ("uppermost", "top"),
)  # fmt: skip


def _only(head: Head, absent: bool) -> Reference | None:
    if len(head.members) == 1:
        return Reference(head.clause or f"the {head.one}", head.members[0])
    if not head.members and absent:
        return Reference(head.clause or f"the {head.one}", None)
    return None


def _fits(item: SceneObject, wanted: dict[str, str]) -> bool:
    return all(getattr(item, key) == value for key, value in wanted.items())


def _noun_phrase(wanted: dict[str, str], random: Random) -> tuple[str, str]:
    if "shape" in wanted:
        names = NOUNS[wanted["shape"]]  # type: ignore[index]
        one, many, _ = random.choices(names, [weight for _, _, weight in names])[0]
        if random.random() < 0.02:
            one, many = f"{wanted['shape']}-shaped object", f"{wanted['shape']}-shaped objects"
    else:
        one, many = random.choice(THINGS)
    before, after = [], ""
    if "size" in wanted:
        before.append(random.choice(ADJECTIVES[wanted["size"]]))
    if "color" in wanted:
        before.append(random.choice(ADJECTIVES.get(wanted["color"], (wanted["color"],))))
    if "fill" in wanted:
        if random.random() < 0.2:
            after = f" {random.choice(FILL_PHRASES[wanted['fill']])}"
        else:  # "striped red" and "red striped" are both said
            before.insert(
                random.choice((len(before), max(0, len(before) - 1))),
                random.choice(ADJECTIVES[wanted["fill"]]),
            )
    lead = " ".join((*before, ""))
    return lead + one + numbered(after, False), lead + many + numbered(after, True)
