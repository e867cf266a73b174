"""Which texts mean exactly the targets that they are for, by votes of a model that sees neither."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from sam3i_edge.data.language_model.answers import BadAnswer
from sam3i_edge.data.language_model.model import LanguageModel
from sam3i_edge.data.language_model.pictures import marked
from sam3i_edge.data.language_model.prompting import Choice, Choices, listing, question
from sam3i_edge.data.scene import Scene

_BATCH: Final = 10  # texts a question


@dataclass(slots=True)
class Tally:
    """The votes on a text.

    Attributes:
        text: it.
        targets: indices of the objects that it is for.
        right: votes for exactly them. wrong: for others. silent: answers that could not be read.
    """

    text: str
    targets: frozenset[int]
    right: int = field(default=0, init=False)
    wrong: int = field(default=0, init=False)
    silent: int = field(default=0, init=False)

    def passed(self, votes: int) -> bool:
        """Whether more than half of all votes are right."""
        return 2 * self.right > votes

    def open(self, votes: int) -> bool:
        """Whether the votes that are left can change the outcome."""
        left = votes - self.right - self.wrong - self.silent
        return not self.passed(votes) and 2 * (self.right + left) > votes


def verify(model: LanguageModel, scene: Scene, tallies: Sequence[Tally], votes: int) -> None:
    """Has texts voted on until each is decided.

    For every vote the objects have other numbers and the texts another order. Texts of the same targets that
    come one after the other are asked about apart, so that none gives another away.

    Args:
        model: chooses among the objects.
        scene: holds them.
        tallies: get the votes.
        votes: on a text, odd.

    Raises:
        Unanswered: the model does not answer; some votes may be in.
        ImageError: the model sees, and the picture cannot be read.
    """
    for batch in _apart(tallies):
        for vote in range(votes):
            undecided = [tally for tally in batch if tally.open(votes)]
            if undecided:
                _vote(model, scene, undecided, vote)


def _vote(model: LanguageModel, scene: Scene, tallies: Sequence[Tally], vote: int) -> None:
    # From the content alone: the same question is the same in every run, and its answer in the cache.
    told = "\n".join(
        [str(vote), listing(scene, range(len(scene.objects))), *(tally.text for tally in tallies)]
    )
    random = Random(int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big"))
    order, asked = list(range(len(scene.objects))), list(tallies)
    random.shuffle(order)
    random.shuffle(asked)
    pictures = [marked(scene, order)] if model.settings.vision else []
    texts = [tally.text for tally in asked]
    messages = question("choose", texts, pictures, objects=listing(scene, order))
    try:
        choices = model.ask(messages, Choices, vote).choices
    except BadAnswer:
        for tally in asked:
            tally.silent += 1
        return
    by_number: dict[int, list[Choice]] = {}
    for choice in choices:
        by_number.setdefault(choice.number, []).append(choice)
    for number, tally in enumerate(asked, start=1):
        if [_meant(choice, order) for choice in by_number.get(number, ())] == [tally.targets]:
            tally.right += 1
        else:
            tally.wrong += 1


def _meant(choice: Choice, order: Sequence[int]) -> frozenset[int] | None:
    """The chosen objects; None where something else is meant too."""
    if choice.unlisted or not all(1 <= number <= len(order) for number in choice.objects):
        return None
    return frozenset(order[number - 1] for number in choice.objects)


def _apart(tallies: Sequence[Tally]) -> list[list[Tally]]:
    """Batches in which no two texts are for the same targets, as few as that takes."""
    batches: list[list[Tally]] = []
    for tally in tallies:
        for batch in batches:
            if len(batch) < _BATCH and all(other.targets != tally.targets for other in batch):
                batch.append(tally)
                break
        else:
            batches.append([tally])
    return batches
