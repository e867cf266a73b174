"""A phrase in the making: what a kind of phrase is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from sam3i_edge.data.geometry import View
from sam3i_edge.data.heads import Head, HeadMaker, Reference, ReferenceMaker
from sam3i_edge.data.wording import NUMBERS, numbered

Granularity = Literal["one", "subset", "all", "none"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A phrase and what it means in the scene.

    Attributes:
        text: the phrase, lower case.
        targets: indices of the objects it describes.
        members: indices of the class that it names.
        universal: whether it asks for every member of the class, be it a single one.
    """

    text: str
    targets: tuple[int, ...]
    members: tuple[int, ...]
    universal: bool = False

    @property
    def granularity(self) -> Granularity:
        """See the module docstring of `instructions`."""
        if not self.targets:
            return "none"
        if len(self.targets) == 1 and not self.universal:
            return "one"
        return "all" if set(self.targets) == set(self.members) else "subset"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a kind of phrase works with.

    Attributes:
        view: the scene.
        random: decides.
        want: the granularity looked for; kinds use it to propose what is likely to have it.
        head: makes heads.
        reference: makes references.
    """

    view: View
    random: Random
    want: Granularity
    head: HeadMaker
    reference: ReferenceMaker

    def make_head(self) -> Head | None:
        """A head; where nothing is to be found, a near miss half of the time."""
        return self.head(self.view, self.random, self.want == "none" and self.random.random() < 0.55)

    def make_reference(self) -> Reference | None:
        """A reference; where nothing is to be found, an absent one at times."""
        return self.reference(self.view, self.random, self.want == "none" and self.random.random() < 0.4)

    def word(self, head: Head, targets: tuple[int, ...], tail: str = "", link: str = "") -> str:
        """The phrase for a head with a modifier after it.

        Args:
            head: the class.
            targets: decide between singular and plural; none takes either.
            tail: modifier, "left of the ring"; may hold `[one|many]`.
            link: put before the tail at times, "that [is|are] ".
        """
        many = len(targets) > 1 if targets else self.random.random() < 0.3
        if tail and link and self.random.random() < (0.5 if " " in head.one else 0.25):
            tail = link + tail
        one, several = (f" {numbered(tail, form)}" if tail else "" for form in (False, True))
        return self._several(head, len(targets), one, several) if many else self._single(head, one)

    def _single(self, head: Head, tail: str) -> str:
        if head.clause and not tail and self.random.random() < 0.5:
            return head.clause
        bare = self.random.random() < 0.12 and (tail or " " in head.one)
        return f"{head.one}{tail}" if bare else f"the {head.one}{tail}"

    def _several(self, head: Head, count: int, one: str, several: str) -> str:
        choose = self.random.choice
        if head.thing and self.random.random() < 0.55:
            if one.startswith(" that "):
                return choose(("everything", "everything", "anything")) + one
            return choose(("everything", "everything", "everything", "anything", "whatever is")) + one
        if head.clause and not one and self.random.random() < 0.5:
            stem = head.clause.removeprefix("what ")
            return choose(("everything that ", "whatever ", "what ", "anything that ")) + stem
        if count >= 2 and self.random.random() < 0.14:
            if count == 2 and self.random.random() < 0.5:
                return f"both {head.many}{several}"
            return f"{choose(('the', 'the', 'all'))} {NUMBERS[count]} {head.many}{several}"
        return choose(
            (
                *(f"every {head.one}{one}",) * 2,
                *(f"all {head.many}{several}",) * 2,
                *(f"the {head.many}{several}",) * 2,
                f"all the {head.many}{several}",
                f"each {head.one}{one}",
                f"{head.many}{several}" if several else f"all of the {head.many}",
            )
        )


Kind = Callable[[Ask], Draft | None]
