"""A scene of a table, instructions for it, and an honest language model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.language_model.prompting import listing
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.vocabulary import load_vocabulary

THINGS = (("mug", "red", 10), ("mug", "blue", 60), ("plate", "red", 110), ("kettle", "black", 160))
TEXTS = {  # text: level, targets
    "the red mug": ("simple", (0,)),
    "every mug that is not red": ("simple", (1,)),
    "mugs": ("concept", (0, 1)),
    "the thing left of the plate that is blue": ("complex", (1,)),
}


def make_scene(shift: int = 0) -> Scene:
    """Four things in a row, `shift` pixels lower."""
    objects = []
    for category, color, x in THINGS:
        mask = np.zeros((120, 210), bool)
        mask[40 + shift : 70 + shift, x : x + 40] = True
        objects.append(
            SceneObject(
                category=category,
                attributes={"color": color},
                box=(x, 40 + shift, x + 40, 70 + shift),
                center=(x + 20, 55 + shift),
                mask=mask,
            )
        )
    image = np.full((120, 210, 3), 200, np.uint8)
    return Scene(image=image, size=(120, 210), objects=tuple(objects), complete=True)


@pytest.fixture
def scene() -> Scene:
    return make_scene()


@pytest.fixture
def scenes() -> list[Scene]:
    """Scenes that differ, so that each is asked about anew."""
    return [make_scene(shift) for shift in range(0, 40, 5)]


@pytest.fixture(scope="session")
def vocabulary():
    return load_vocabulary("tabletop")


def make_instructions() -> list[Instruction]:
    """The texts as proven ones."""
    return [
        Instruction(text, level, "one" if len(targets) == 1 else "all", targets, "plain", "plain")
        for text, (level, targets) in TEXTS.items()
    ]


@pytest.fixture(scope="session")
def instructions() -> list[Instruction]:
    return make_instructions()


class Honest:
    """Rewords by an opening, proposes what `proposals` has, and chooses what the words mean.

    Attributes:
        meanings: targets by what a text ends with.
        proposals: texts by targets.
        known: the scene's objects by what the list says of them, whatever their numbers and height.
    """

    def __init__(self) -> None:
        self.meanings = {text: targets for text, (_, targets) in TEXTS.items()}
        self.proposals = {
            (0,): ["what is red and one drinks from"],
            (1,): ["what is blue and one drinks from"],
            (0, 1): ["what one drinks coffee from"],
        }
        self.meanings |= {text: targets for targets, texts in self.proposals.items() for text in texts}
        lines = listing(make_scene(), range(4)).splitlines()
        self.known = {self._kind(line.partition(". ")[2]): index for index, line in enumerate(lines)}

    @staticmethod
    def _kind(line: str) -> str:
        return line.partition(", y ")[0]

    def __call__(self, asked) -> str:
        if asked.kind == "choose":
            return self.choose(asked)
        entries = [
            {"number": number, "texts": self.texts(asked.kind, text)} for number, text in asked.texts.items()
        ]
        return json.dumps({"entries": entries})

    def texts(self, kind: str, text: str) -> list[str]:
        if kind == "rewrite":
            return [f"please find {text}", f"can you show me {text}?"]
        return self.proposals[tuple(int(part) - 1 for part in text.removeprefix("objects ").split(", "))]

    def choose(self, asked) -> str:
        numbers = {self.known[self._kind(line)]: number for number, line in asked.objects.items()}
        choices = [
            {"number": number, "objects": [numbers[index] for index in self.meant(text)]}
            for number, text in asked.texts.items()
        ]
        return json.dumps({"choices": choices})

    def meant(self, text: str) -> tuple[int, ...]:
        return next(targets for words, targets in self.meanings.items() if text.rstrip("?").endswith(words))


@pytest.fixture
def honest() -> Honest:
    return Honest()
