"""Questions to a language model: the files in `prompts/`, filled in, and what the answers must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sam3i_edge.data.scene import Scene, SceneObject

Question = Literal["rewrite", "propose", "choose"]

_Number = Annotated[int, Field(ge=1, le=1000)]


class Entry(BaseModel):
    """New texts for a request or a target set, by its number from 1."""

    number: _Number
    texts: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=50)]


class Entries(BaseModel):
    """The answer to "rewrite" and "propose"."""

    entries: Annotated[list[Entry], Field(max_length=1000)]


class Choice(BaseModel):
    """What a request asks for: numbers from 1 of objects, and whether anything that is not listed too."""

    number: _Number
    objects: Annotated[list[int], Field(max_length=1000)]
    unlisted: bool = False


class Choices(BaseModel):
    """The answer to "choose"."""

    choices: Annotated[list[Choice], Field(max_length=1000)]


def question(
    name: Question, texts: Sequence[str], pictures: Sequence[str] = (), **values: str | int
) -> list[dict[str, Any]]:
    """The messages for a question.

    Args:
        name: of the file.
        texts: what is asked about, numbered from 1.
        pictures: data addresses, shown after the words; the first has the objects' numbers drawn in.
        values: what the file has beside `$texts` and `$picture`.
    """
    shown = "The picture shows their numbers.\n" if pictures else ""
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))
    return messages(_template(name).substitute(values, texts=numbered, picture=shown), pictures)


def messages(words: str, pictures: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Words, and after them pictures as data addresses, as one turn of the protocol."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": words}]
    parts += [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
    return [{"role": "user", "content": parts if pictures else words}]


def listing(scene: Scene, order: Sequence[int]) -> str:
    """All that is known of a scene's objects, a line each, numbered from 1.

    Args:
        scene: the scene.
        order: indices of its objects, in the order of their numbers.
    """
    numbers = {index: number for number, index in enumerate(order, start=1)}
    lines = [f"{numbers[index]}. {_described(scene, scene.objects[index], numbers)}" for index in order]
    if not scene.complete:
        lines.append("There may be more in the picture than is listed.")
    return "\n".join(lines)


def _described(scene: Scene, item: SceneObject, numbers: Mapping[int, int]) -> str:
    height, width = scene.size
    x0, y0, x1, y1 = item.box
    across, down = item.full_size or (x1 - x0, y1 - y0)
    facts = [f"{name} {value or 'unknown'}" for name, value in sorted(item.attributes.items())]
    facts.append(f"at x {100 * item.center[0] / width:.0f}, y {100 * item.center[1] / height:.0f}")
    facts.append(f"width {100 * across / width:.0f}, height {100 * down / height:.0f}")
    if item.depth is not None:
        facts.append(f"distance {item.depth:.3g}")
    for name, verdicts in sorted(item.relations.items()):
        for verdict, words in ((True, name), (None, f"perhaps {name}")):
            others = sorted(numbers[other] for other, found in verdicts.items() if found is verdict)
            if others:
                facts.append(f"{words} {', '.join(map(str, others))}")
    return f"{item.category}: " + "; ".join(facts)


@cache
def _template(name: Question) -> Template:
    return Template(resources.files(__package__).joinpath("prompts", f"{name}.txt").read_text("utf-8"))
