"""A language model that sees, behind an OpenAI-compatible endpoint, as the one who reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from sam3i_edge.data.language_model.answers import BadAnswer
from sam3i_edge.data.language_model.model import LanguageModel, Unanswered
from sam3i_edge.data.language_model.pictures import numbered
from sam3i_edge.data.language_model.prompting import messages
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.evaluate.agent.loop import PHRASES, Candidate, Choice, Failed, Question

_ANSWER = TypeVar("_ANSWER", bound=BaseModel)
_Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class Phrases(BaseModel):
    """The answer to "phrases"."""

    phrases: Annotated[list[_Phrase], Field(max_length=20)]


class Chosen(BaseModel):
    """The answer to "choose": numbers from 1."""

    masks: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=1000)]
    again: bool = False


class VisionModel:
    """Asks a language model that is shown the picture."""

    def __init__(self, model: LanguageModel) -> None:
        """Takes the model; whoever opened it closes it."""
        self.model = model

    def phrases(self, question: Question, tried: Mapping[str, int]) -> tuple[str, ...]:
        """See `Reasoner.phrases`.

        Raises:
            Failed: the answer cannot be read, or none came.
            RuntimeUnavailable: nothing more is asked, as `LanguageModel.stopped` says.
        """
        before = "".join(f"{phrase!r} gave {count} masks.\n" for phrase, count in tried.items())
        words = _template("phrases").substitute(
            instruction=question.instruction,
            most=PHRASES,
            tried=f"Tried before, try others:\n{before}" if before else "",
        )
        return tuple(self._ask(question, words, (), Phrases).phrases)

    def choose(self, question: Question, candidates: Sequence[Candidate]) -> Choice:
        """See `Reasoner.choose`; errors as in `phrases`. A number that no mask has is a failure."""
        found = "\n".join(f"{number}. {one.phrase}" for number, one in enumerate(candidates, start=1))
        words = _template("choose").substitute(instruction=question.instruction, found=found)
        masks = [candidate.mask for candidate in candidates]
        answer = self._ask(question, words, masks, Chosen)
        if max(answer.masks, default=0) > len(candidates):
            raise Failed("a mask was chosen that is not there")
        return Choice(tuple(number - 1 for number in dict.fromkeys(answer.masks)), answer.again)

    def _ask(self, question: Question, words: str, masks: Sequence[Any], kind: type[_ANSWER]) -> _ANSWER:
        try:
            picture = numbered(question.pixels, masks)
            return self.model.ask(messages(words, [picture]), kind, bill=question.bill)
        except BadAnswer as bad:
            raise Failed("no answer that can be read") from bad
        except Unanswered as none:
            if self.model.stopped is None:
                raise Failed("no answer of the endpoint") from none
            raise RuntimeUnavailable(
                f"the agent's model is not asked any more: {self.model.stopped}; its answers are kept, and "
                "the same command goes on from them"
            ) from none


@cache
def _template(name: Literal["phrases", "choose"]) -> Template:
    return Template(resources.files(__package__).joinpath("prompts", f"{name}.txt").read_text("utf-8"))
