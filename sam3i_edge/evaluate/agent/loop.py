"""The agent's way to an answer: noun phrases, masks of the concept level, a choice, and again.

Source: SAM 3 Agent (Carion et al. 2025), the baseline that SAM3-I is compared with. Whoever reasons, a model
or a rule, is a `Reasoner`; the rest is the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.language_model.model import Bill
from sam3i_edge.levels import Level
from sam3i_edge.masks.iou import mask_iou
from sam3i_edge.scene import Scene
from sam3i_edge.segmenter import Segmenter

PHRASES: Final = 5  # of a round, at most
_SAME: Final = 0.9  # mask IoU with a candidate; a mask above it is that candidate


class Failed(Exception):  # noqa: N818  (the question has no answer, nothing is wrong here)
    """A reasoner gave no answer that can be used; its text says why and is counted."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a picture.

    Attributes:
        file: the picture's.
        pixels: [H, W, 3] uint8 RGB.
        instruction: the user's words.
        bill: takes in what reasoning costs.
    """

    file: Path
    pixels: NDArray[np.uint8]
    instruction: str
    bill: Bill = field(default_factory=Bill)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask to choose or to leave.

    Attributes:
        phrase: that found it first.
        mask: [H, W] bool, at least one pixel.
    """

    phrase: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a reasoner takes.

    Attributes:
        masks: places among the candidates, from 0.
        again: whether other phrases should be tried.
    """

    masks: tuple[int, ...]
    again: bool


class Reasoner(Protocol):
    """Who thinks. It adds each of its answers to `Question.bill`."""

    def phrases(self, question: Question, tried: Mapping[str, int]) -> Sequence[str]:
        """Noun phrases to look for.

        Args:
            question: see there.
            tried: phrases asked before, and how many masks each gave.

        Returns:
            Phrases that can be asked; none where there is nothing, or nothing more, to look for.

        Raises:
            Failed: there is no answer.
        """

    def choose(self, question: Question, candidates: Sequence[Candidate]) -> Choice:
        """The masks that are asked for, among at least one.

        Raises:
            Failed: there is no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one question cost.

    Attributes:
        calls: answers of the reasoner.
        tokens: of its prompts and answers.
        passes: phrases that were segmented.
        rounds: those that were begun.
        ms: milliseconds of the reasoner, as when it was first asked, and of the passes to masks.
        failure: why the question has no whole answer, or "".
    """

    calls: int
    tokens: int
    passes: int
    rounds: int
    ms: float
    failure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the agent found; `evaluate.run.Found`.

    Attributes:
        masks: [N, H, W] bool.
        threshold: score above which the concept level kept masks.
        presence: 1 where there is a mask, else 0.
        level: "concept".
    """

    masks: NDArray[np.bool_]
    threshold: float
    presence: float
    level: Level = "concept"


class Agent:
    """Answers instructions through the concept level alone; `evaluate.run.Model`.

    Attributes:
        costs: of the questions so far, in their order.
    """

    def __init__(self, segmenter: Segmenter, reasoner: Reasoner, *, rounds: int = 3) -> None:
        """Takes the parts.

        Args:
            segmenter: asked at level concept.
            reasoner: finds phrases and chooses.
            rounds: most rounds a question, from 1.

        Raises:
            ValueError: `rounds` is below 1.
        """
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {rounds}")
        self.segmenter, self.reasoner, self.rounds = segmenter, reasoner, rounds
        self.costs: list[Cost] = []

    def encode(self, image: Path) -> AgentPicture:
        """Reads and encodes one picture, as `Segmenter.encode`."""
        return AgentPicture(self, image, self.segmenter.encode(image))


class AgentPicture:
    """A picture that the agent may be asked about."""

    def __init__(self, agent: Agent, file: Path, scene: Scene) -> None:
        self._agent, self._file, self._scene = agent, file, scene

    def segment(self, instruction: str, *, level: str, threshold: float | None) -> Answer:
        """Answers one instruction; the level does not matter.

        A reasoner that fails leaves what was chosen until then, which may be nothing.
        """
        del level
        agent, question = self._agent, Question(self._file, self._scene.image, instruction)
        threshold = agent.segmenter.info.threshold if threshold is None else threshold
        search = _Search(self._scene, threshold)
        chosen: tuple[int, ...] = ()
        failure = ""
        rounds = 0
        try:
            while rounds < agent.rounds:
                rounds += 1
                phrases = agent.reasoner.phrases(question, search.tried)
                if not search.ask(phrases):
                    break
                if not search.candidates:
                    continue
                choice = agent.reasoner.choose(question, search.candidates)
                chosen = choice.masks
                if not choice.again:
                    break
        except Failed as failed:
            failure = str(failed)
        agent.costs.append(
            Cost(
                calls=question.bill.calls,
                tokens=question.bill.tokens,
                passes=len(search.tried),
                rounds=rounds,
                ms=1e3 * (question.bill.seconds + search.seconds),
                failure=failure,
            )
        )
        masks = [search.candidates[place].mask for place in chosen]
        stack = np.stack(masks) if masks else np.zeros((0, *self._scene.image_size), np.bool_)
        return Answer(masks=stack, threshold=threshold, presence=float(bool(masks)))


class _Search:
    """What the concept level has found so far.

    Attributes:
        candidates: masks, none of them twice.
        tried: phrases, and how many masks each gave.
        seconds: that it took.
    """

    def __init__(self, scene: Scene, threshold: float) -> None:
        self.candidates: list[Candidate] = []
        self.tried: dict[str, int] = {}
        self.seconds = 0.0
        self._scene, self._threshold = scene, threshold

    def ask(self, phrases: Sequence[str]) -> bool:
        """Segments what was not tried before; whether there was any."""
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self.tried][:PHRASES]
        for phrase in new:
            started = time.perf_counter()
            masks = self._scene.segment(phrase, level="concept", threshold=self._threshold).masks
            self.seconds += time.perf_counter() - started
            self.tried[phrase] = len(masks)
            for mask in masks:
                if mask.any() and not self._known(mask):
                    self.candidates.append(Candidate(phrase, mask))
        return bool(new)

    def _known(self, mask: NDArray[np.bool_]) -> bool:
        if not self.candidates:
            return False
        known = np.stack([candidate.mask for candidate in self.candidates])
        return bool(mask_iou(mask[None], known).max() > _SAME)
