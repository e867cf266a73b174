"""The words: nouns, adjectives and riddles for shapes and colours.

In a phrase `[a|b]` is a for one and b for many, so one line serves "that has" and "that have". Choices repeat
an entry to make it more likely; the first is the usual one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sam3i_edge.data.palette import Color
from sam3i_edge.data.shapes import SHAPES, Shape

NOUNS: Final[dict[Shape, tuple[tuple[str, str, float], ...]]] = {  # singular, plural, weight
    "circle": (("circle", "circles", 0.87), ("disc", "discs", 0.05), ("disk", "disks", 0.05)),
    "square": (("square", "squares", 1.0),),
    "triangle": (("triangle", "triangles", 1.0),),
    "star": (("star", "stars", 0.96), ("five-pointed star", "five-pointed stars", 0.02)),
    "ring": (("ring", "rings", 0.9), ("donut", "donuts", 0.04), ("hoop", "hoops", 0.04)),
    "cross": (("cross", "crosses", 0.91), ("plus", "pluses", 0.03), ("plus sign", "plus signs", 0.04)),
    "heart": (("heart", "hearts", 1.0),),
    "hexagon": (("hexagon", "hexagons", 1.0),),
    "diamond": (("diamond", "diamonds", 0.92), ("rhombus", "rhombuses", 0.06)),
    "crescent": (
        ("crescent", "crescents", 0.88),
        ("crescent moon", "crescent moons", 0.06),
        ("moon", "moons", 0.04),
    ),
}
THINGS: Final = (
    ("shape", "shapes"), ("thing", "things"), ("object", "objects"),
    ("shape", "shapes"), ("thing", "things"), ("object", "objects"), ("figure", "figures"), ("item", "items"),
)  # fmt: skip
ADJECTIVES: Final[dict[str, tuple[str, ...]]] = {
    "small": (*("small",) * 8, "little", "tiny"),
    "large": (*("large",) * 6, "big", "big", "big", "huge"),
    "plain": ("plain", "plain", "plain", "solid", "unpatterned"),
    "striped": (*("striped",) * 8, "stripy", "lined"),
    "dotted": (*("dotted",) * 8, "spotted", "polka-dot"),
    "purple": (*("purple",) * 9, "violet"),
}
FILL_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("without a pattern", "with no pattern", "without stripes or dots", "in one plain color"),
    "striped": ("with stripes", "with stripes", "covered in stripes", "with lines across [it|them]"),
    "dotted": ("with dots", "with dots", "with spots", "covered in dots"),
}
PATTERNED: Final = (
    "with a pattern",
    "that [has|have] a pattern",
    "covered in a pattern",
    "decorated with a pattern",
)


class Riddle(NamedTuple):
    """A description of shapes that does not name them.

    Attributes:
        shapes: what it describes.
        unclear: shapes of which one could argue; no scene with one of them is asked the riddle.
        phrases: after "the thing" or "the things".
    """

    shapes: frozenset[Shape]
    unclear: frozenset[Shape]
    phrases: tuple[str, ...]


def _riddle(shapes: str, phrases: tuple[str, ...], unclear: str = "") -> Riddle:
    known = {shape: shape for shape in SHAPES}
    return Riddle(
        frozenset(known[name] for name in shapes.split()),  # type: ignore[index]
        frozenset(known[name] for name in unclear.split()),  # type: ignore[index]
        phrases,
    )


RIDDLES: Final = (
    _riddle("triangle", (
        "with three corners", "with three sides", "that [has|have] three corners",
        "that [has|have] three sides", "with exactly three edges", "with three angles",
        "with just three corners",
    )),
    _riddle("triangle", (
        "that look[s|] like [a slice|slices] of pizza", "shaped like [a pyramid|pyramids]",
        "that could be the roof of a house", "shaped like a tent",
    )),
    _riddle("square diamond", (
        "with four corners", "with four sides", "that [has|have] four corners", "that [has|have] four sides",
        "with four equal sides", "with exactly four edges", "that [has|have] four equal sides",
    ), unclear=""),
    _riddle("square", (
        "with four right angles", "that look[s|] like [a box|boxes]", "shaped like a chessboard",
        "shaped like one face of a die", "that look[s|] like a floor tile",
        "with sides of equal length and right angles",
    ), unclear="cross diamond"),
    _riddle("diamond", (
        "shaped like [a kite|kites]", "that look[s|] like [a gem|gems]",
        "that look[s|] like [a jewel|jewels]", "balanced on one of four corners",
        "that remind[s|] of a precious stone",
    ), unclear="square"),
    _riddle("heart diamond", (
        "that [is|are] also a suit of playing cards", "that you know from playing cards",
    )),
    _riddle("star", (
        "with five points", "with five tips", "that [has|have] five points", "with five spikes",
        "that twinkle[s|] at night", "that you put on top of a christmas tree", "that a sheriff wears",
        "that you can wish upon", "that appear[s|] on the flag of the united states", "with five arms",
    )),
    _riddle("star", (
        "that you see in the night sky", "that shine[s|] in the night sky", "that come[s|] out at night",
    ), unclear="crescent"),
    _riddle("heart", (
        "that stand[s|] for love", "that stand[s|] for love", "that mean[s|] love", "that symbolize[s|] love",
        "that express[es|] affection", "that you see on valentine's day", "that beat[s|] in your chest",
        "that pump[s|] blood", "that lovers carve into a tree", "that you send to someone you love",
        "used as a symbol of love",
    )),
    _riddle("circle ring", (
        "with no corners", "without corners", "that [has|have] no corners", "without any corner",
        "that could roll away", "that [is|are] round", "with a round outline", "without straight sides",
        "that [is|are] perfectly round",
    ), unclear="heart crescent"),
    _riddle("circle", (
        "shaped like [a coin|coins]", "shaped like [a ball|balls]", "that look[s|] like a full moon",
        "that look[s|] like [a button|buttons]", "shaped like [a plate|plates]",
        "that [is|are] round without a hole", "with the shape of the sun",
    )),
    _riddle("circle", ("with the shape of a wheel", "shaped like [a wheel|wheels]"), unclear="ring"),
    _riddle("ring", (
        "with a hole", "with a hole", "with a hole in the middle", "that [has|have] a hole",
        "with an opening in the center", "that [is|are] hollow", "that [is|are] empty in the middle",
        "that you can look through", "that a finger could wear", "that fit[s|] on a finger",
        "that look[s|] like [a donut|donuts]", "shaped like [a bagel|bagels]", "shaped like the letter o",
        "that couples exchange at a wedding", "that look[s|] like a lifebuoy",
    )),
    _riddle("cross", (
        "that look[s|] like a plus sign", "shaped like a plus sign", "that mark[s|] a first-aid kit",
        "that mark[s|] a hospital", "that you see on an ambulance", "with four arms", "with twelve corners",
        "that stand[s|] for addition", "made of two crossing bars", "that appear[s|] on the swiss flag",
        "used for adding numbers",
    )),
    _riddle("hexagon", (
        "with six sides", "with six corners", "that [has|have] six sides", "that [has|have] six corners",
        "that look[s|] like a honeycomb cell", "that bees build", "shaped like a tile of a honeycomb",
        "shaped like [a nut|nuts] for a bolt", "with exactly six edges",
    )),
    _riddle("crescent", (
        "shaped like [a sickle|sickles]", "shaped like [a banana|bananas]", "that look[s|] like a croissant",
        "that look[s|] like the new moon", "shaped like a thin moon", "that look[s|] like a bitten disc",
    )),
    _riddle("crescent", (
        "that look[s|] like the moon", "that remind[s|] of the moon", "shaped like the moon",
    ), unclear="circle"),
    _riddle("star cross hexagon", ("with more than four corners", "that [has|have] more than four corners")),
    _riddle("square triangle star cross hexagon diamond", (
        "with straight sides only", "made of straight lines", "that [has|have] only straight edges",
    )),
    _riddle("circle ring heart crescent", ("with a curved outline", "that [has|have] curved edges")),
)  # fmt: skip

LIKE: Final[dict[Color, tuple[str, ...]]] = {  # things of a colour that nobody disputes
    "red": ("blood", "a ripe tomato", "a fire engine", "a strawberry", "a stop sign", "a cherry"),
    "green": ("grass", "a leaf in spring", "a frog", "a cucumber", "a meadow"),
    "blue": ("the sky", "a clear sky", "the sea", "the ocean", "sapphire"),
    "yellow": ("a ripe banana", "the sun", "a lemon", "an egg yolk", "a sunflower"),
    "purple": ("lavender", "an eggplant", "a plum", "amethyst"),
    "orange": ("a carrot", "a pumpkin", "a tangerine", "a basketball"),
    "white": ("snow", "milk", "chalk", "a swan"),
    "black": ("coal", "the night", "tar", "a raven", "soot"),
}
LIKE_PHRASES: Final = (
    "with the color of {}", "the color of {}", "colored like {}", "that [has|have] the color of {}",
    "in the color of {}", "that [is|are] colored like {}",
)  # fmt: skip
FILL_RIDDLES: Final = {
    "striped": ("patterned like a zebra", "that look[s|] like a zebra crossing", "with lines like a tiger"),
    "dotted": ("patterned like a ladybug", "with spots like a dalmatian", "that remind[s|] of polka dots"),
}

OPENINGS: Final = (
    "find {}", "find {}", "please find {}", "segment {}", "segment {}", "please segment {}", "show me {}",
    "select {}", "highlight {}", "mark {}", "point out {}", "outline {}", "can you find {}?", "i want {}",
    "could you show me {}?", "give me {}", "cut out {}", "pick out {}", "look for {}", "where is {}?",
    "detect {}", "mask {}", "i am looking for {}", "please select {}",
)  # fmt: skip

_NUMBERED: Final = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ORDINALS: Final = ("", "first", "second", "third", "fourth", "fifth")


def numbered(phrase: str, many: bool) -> str:
    """The phrase for one or for many."""
    return _NUMBERED.sub(r"\2" if many else r"\1", phrase)
