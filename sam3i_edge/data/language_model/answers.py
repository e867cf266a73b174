"""The JSON object in what a language model wrote, checked."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from sam3i_edge.bundle.manifest import first_problem

KIND = TypeVar("KIND", bound=BaseModel)

_decoder = json.JSONDecoder()


class BadAnswer(ValueError):  # noqa: N818  (it is no error of the program)
    """An answer that is not what was asked for."""


def read_answer(text: str, kind: type[KIND]) -> KIND:
    """Finds the one object of a kind; what stands around it, thoughts and fences, does not count.

    Raises:
        BadAnswer: there is none, or there are several that differ.
    """
    found: list[KIND] = []
    problem = "it holds no JSON object"
    place = text.find("{")
    while place >= 0:
        try:
            content, end = _decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place = text.find("{", place + 1)
            continue
        try:
            answer = kind.model_validate(content)
        except ValidationError as error:
            problem = first_problem(error)
        else:
            if answer not in found:
                found.append(answer)
        place = text.find("{", end)
    if len(found) > 1:
        raise BadAnswer(f"it holds {len(found)} answers that differ")
    if not found:
        raise BadAnswer(problem)
    return found[0]
