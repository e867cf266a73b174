"""Proven instructions in other words, and complex ones for their targets, verified before they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.language_model.answers import BadAnswer
from sam3i_edge.data.language_model.model import LanguageModel, Unanswered
from sam3i_edge.data.language_model.pictures import cut_out, marked
from sam3i_edge.data.language_model.prompting import Entries, listing, question
from sam3i_edge.data.language_model.rules import Rules, is_plain
from sam3i_edge.data.language_model.verification import Tally, verify
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import ImageError

FAMILY: Final = "language model"  # of what it words
PROPOSED: Final = "proposal"  # the form of what it proposes
NOT_COMPLETE: Final = "a language model proposed it, and not everything in the picture is labelled"

_BATCH: Final = 10  # instructions or target sets a question


@dataclass(slots=True)
class Rewritten:
    """What came of one scene.

    Attributes:
        instructions: verified ones, beside those given.
        unproven: verified proposals for a scene that may hold what is not listed, with `why`; for review.
        dropped: texts that were not taken, by the reason.
        waiting: instructions and target sets that the model was not asked about, or has not answered for.
            Where it is not 0, call again in another run and take that call's result: answers are kept.
    """

    instructions: list[Instruction] = field(default_factory=list)
    unproven: list[Instruction] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    waiting: int = 0

    def add(self, other: Rewritten) -> None:
        """Takes in what came of a part."""
        self.instructions += other.instructions
        self.unproven += other.unproven
        self.dropped += other.dropped
        self.waiting += other.waiting


class Rewriter:
    """Words instructions by a language model. Thread-safe, so `LanguageModel.map` may ask for many scenes."""

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        *,
        rewrites: int = 2,
        proposals: int = 1,
        votes: int = 3,
    ) -> None:
        """Takes the settings.

        Args:
            model: asked.
            vocabulary: of the scenes.
            rewrites: texts asked for each instruction of level simple and complex, from 0.
            proposals: complex texts asked for each set of targets, from 0.
            votes: on each text, an odd number.

        Raises:
            ValueError: a number is out of range.
        """
        if not (0 <= rewrites <= 20 and 0 <= proposals <= 20):
            raise ValueError(f"rewrites and proposals must be 0 to 20, got {rewrites} and {proposals}")
        if votes < 1 or votes % 2 == 0:
            raise ValueError(f"votes must be an odd number, got {votes}: a majority has no ties")
        self.model, self._rules = model, Rules(vocabulary)
        self._rewrites, self._proposals, self._votes = rewrites, proposals, votes

    def rewrite(self, scene: Scene, instructions: Sequence[Instruction]) -> Rewritten:
        """Gives verified texts for a scene's proven instructions.

        Args:
            scene: what they speak of.
            instructions: proven ones, of any level. Concepts are not reworded; every set of targets is
                proposed for once.

        Raises:
            DataError, OSError: the cache cannot be used, as on a full disk.
        """
        done = Rewritten()
        known = {_folded(instruction.text) for instruction in instructions}
        asked = [one for one in instructions if one.level != "concept"] if self._rewrites else []
        sets = {one.targets: one for one in reversed(instructions) if one.targets} if self._proposals else {}
        try:
            self._work(scene, asked, list(sets.values())[::-1], known, done)
        except ImageError:
            done.dropped["a picture that cannot be read"] += 1
        return done

    def _work(
        self,
        scene: Scene,
        asked: Sequence[Instruction],
        sets: Sequence[Instruction],
        known: set[str],
        done: Rewritten,
    ) -> None:
        for start in range(0, len(asked), _BATCH):
            batch, part = asked[start : start + _BATCH], Rewritten()
            try:
                messages = question("rewrite", [one.text for one in batch], count=self._rewrites)
                drafts = self._drafts(messages, batch, self._rewrites, part)
                rewritten = [replace(one, text=text, family=FAMILY) for one, text in drafts]
                before = [one.text for one, _ in drafts]
                part.instructions = self._verified(scene, rewritten, before, known, part)
            except Unanswered:
                part = Rewritten(waiting=len(batch))
            done.add(part)
        for start in range(0, len(sets), _BATCH):
            batch, part = sets[start : start + _BATCH], Rewritten()
            try:
                drafts = self._drafts(self._proposal(scene, batch), batch, self._proposals, part)
                proposed = [_proposed(one, text, scene.complete) for one, text in drafts]
                verified = self._verified(scene, proposed, None, known, part)
                (part.instructions if scene.complete else part.unproven).extend(verified)
            except Unanswered:
                part = Rewritten(waiting=len(batch))
            done.add(part)

    def _proposal(self, scene: Scene, sets: Sequence[Instruction]) -> list[dict[str, object]]:
        order = range(len(scene.objects))
        texts = ["objects " + ", ".join(str(index + 1) for index in one.targets) for one in sets]
        pictures = []
        if self.model.settings.vision:
            pictures = [marked(scene, order), *(cut_out(scene, one.targets) for one in sets)]
        return question("propose", texts, pictures, objects=listing(scene, order), count=self._proposals)

    def _drafts(
        self,
        messages: list[dict[str, object]],
        batch: Sequence[Instruction],
        most: int,
        done: Rewritten,
    ) -> list[tuple[Instruction, str]]:
        """New texts with the instruction each is for: first all first ones, then all second ones."""
        try:
            entries = self.model.ask(messages, Entries).entries
        except BadAnswer:
            done.dropped["no answer that can be read"] += len(batch)
            return []
        drafts = [
            (place, batch[entry.number - 1], " ".join(text.replace("\u2019", "'").split()))
            for entry in entries
            if entry.number <= len(batch)
            for place, text in enumerate(entry.texts[:most])
        ]
        return [(one, text) for _, one, text in sorted(drafts, key=lambda draft: draft[0])]

    def _verified(
        self,
        scene: Scene,
        drafts: Sequence[Instruction],
        before: Sequence[str] | None,
        known: set[str],
        done: Rewritten,
    ) -> list[Instruction]:
        kept: list[tuple[Instruction, Tally]] = []
        for number, draft in enumerate(drafts):
            problem = self._problem(scene, draft, None if before is None else before[number])
            if problem is None and _folded(draft.text) in known:
                problem = "the same as another"
            if problem is not None:
                done.dropped[problem] += 1
                continue
            known.add(_folded(draft.text))
            kept.append((draft, Tally(draft.text, frozenset(draft.targets))))
        verify(self.model, scene, [tally for _, tally in kept], self._votes)
        for _, tally in kept:
            if not tally.passed(self._votes):
                done.dropped["other targets" if tally.wrong else "votes that cannot be read"] += 1
        return [draft for draft, tally in kept if tally.passed(self._votes)]

    def _problem(self, scene: Scene, draft: Instruction, before: str | None) -> str | None:
        if not is_plain(draft.text):
            return "no plain sentence"
        categories = {scene.objects[index].category for index in draft.targets}
        if draft.level == "complex" and self._rules.names(draft.text, categories):
            return "names its target"
        return None if before is None else self._rules.lost(before, draft.text)


def _proposed(source: Instruction, text: str, complete: bool) -> Instruction:
    return replace(
        source,
        text=text,
        level="complex",
        form=PROPOSED,
        family=FAMILY,
        why="" if complete else NOT_COMPLETE,
        query=None,
    )


def _folded(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".?! ")
