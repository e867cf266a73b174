"""Shards whose proven instructions a language model words too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sam3i_edge.data.instruct.shards import InstructConfig, Picture, Shard, opened, work
from sam3i_edge.data.language_model.model import LanguageModel
from sam3i_edge.data.language_model.rewriting import Rewriter, Rewritten


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What a language model is asked for; see `Rewriter`.

    Attributes:
        model: asked.
        rewrites: of each instruction of level simple and complex.
        proposals: complex texts of each set of targets.
        votes: on each text.
    """

    model: LanguageModel
    rewrites: int = 2
    proposals: int = 1
    votes: int = 3

    def settings(self) -> dict[str, Any]:
        """What decides the answers, as plain values: no address, no budget."""
        asked = self.model.settings
        return {
            "model": asked.model,
            "vision": asked.vision,
            "options": dict(asked.options),
            "rewrites": self.rewrites,
            "proposals": self.proposals,
            "votes": self.votes,
        }

    def run(self, config: InstructConfig, numbers: Sequence[int]) -> Iterator[Shard]:
        """The shards, done here, as many pictures asked for at a time as the model's settings say."""
        rewriter = Rewriter(
            self.model,
            opened(config)[1],
            rewrites=self.rewrites,
            proposals=self.proposals,
            votes=self.votes,
        )

        def ask(picture: Picture) -> tuple[Picture, Rewritten | None]:
            if picture.scene is None:
                return picture, None
            return picture, rewriter.rewrite(picture.scene, picture.written.instructions)

        def reword(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, Rewritten | None]]:
            return self.model.map(ask, pictures)

        return (work(config, number, reword) for number in numbers)
