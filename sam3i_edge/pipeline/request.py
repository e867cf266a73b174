"""What is asked of a model, checked against what the model can answer before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from sam3i_edge.bundle.manifest import Variant
from sam3i_edge.errors import InstructionError
from sam3i_edge.levels import Level, LevelChooser, as_level, route
from sam3i_edge.pipeline.instruction import check_instruction
from sam3i_edge.pipeline.prompt import VISUAL, BoxPrompt
from sam3i_edge.pipeline.router import Router


@dataclass(frozen=True, slots=True)
class Request:
    """One question, ready to be asked of any image.

    Attributes:
        instruction: as the caller wrote it; None when boxes ask alone.
        cleaned: the text that is encoded.
        boxes: examples, or None.
        level: the level that answers.
        level_chosen_by: "caller"; where it was "auto", "router" when the bundle's learned router chose,
            "auto" when the rules of `levels.route` did.
        threshold: least score of an instance, 0 to 1.
        suppress: largest mask IoU of two instances, 0 to 1, or None.
    """

    instruction: str | None
    cleaned: str
    boxes: BoxPrompt | None
    level: Level
    level_chosen_by: LevelChooser
    threshold: float
    suppress: float | None = None

    def check_inside(self, image_size: tuple[int, int]) -> None:
        """Raises ValueError where a box leaves the image of (H, W) pixels."""
        if self.boxes is not None:
            self.boxes.check_inside(image_size)


class Rules:
    """What one variant of a model answers."""

    def __init__(
        self, model: str, name: str, variant: Variant, threshold: float, router: Router | None = None
    ) -> None:
        """Sets the rules.

        Args:
            model: name of the bundle, for messages.
            name: name of the variant, for messages.
            variant: its levels and number of boxes.
            threshold: least score where a request names none.
            router: chooses levels; None leaves them to the rules.

        Raises:
            ValueError: the threshold is not 0 to 1.
        """
        check_threshold(threshold)
        self.threshold = threshold
        self._model, self._name, self._variant, self._router = model, name, variant, router

    def check(
        self,
        instruction: str | None,
        level: str,
        threshold: float | None,
        boxes: ArrayLike | None = None,
        box_labels: ArrayLike | None = None,
        suppress: float | None = None,
    ) -> Request:
        """Checks all that can be checked without the image; see `Segmenter.segment` for what it refuses."""
        cleaned = VISUAL if instruction is None else check_instruction(instruction)
        chosen, chosen_by = self._level(cleaned, level, routed=instruction is not None)
        prompt = self._boxes(boxes, box_labels)
        if instruction is None:
            if prompt is None:
                raise InstructionError(
                    "there is neither an instruction nor a box: describe what to segment, as in "
                    "'the red star', or pass boxes"
                )
            if chosen != "concept":
                raise ValueError(
                    f"boxes without an instruction are asked at level concept, got level {chosen!r}: "
                    "leave the level out, or add an instruction"
                )
        if threshold is not None:
            check_threshold(threshold)
        if suppress is not None and not 0 <= suppress <= 1:
            raise ValueError(f"suppress must be a mask IoU, 0 to 1, got {suppress}")
        return Request(
            instruction,
            cleaned,
            prompt,
            chosen,
            chosen_by,
            self.threshold if threshold is None else threshold,
            suppress,
        )

    def check_all(
        self,
        instructions: str | list[str] | tuple[str, ...] | None,
        level: str,
        threshold: float | None,
        boxes: ArrayLike | None = None,
        box_labels: ArrayLike | None = None,
        suppress: float | None = None,
    ) -> list[Request]:
        """A request for one instruction, for boxes alone (None), or for each of a list, in order."""
        if not isinstance(instructions, (list, tuple)):
            return [self.check(instructions, level, threshold, boxes, box_labels, suppress)]
        if None in instructions:
            raise TypeError("each of several instructions must be a string, got None")
        return [self.check(text, level, threshold, boxes, box_labels, suppress) for text in instructions]

    def _level(self, cleaned: str, level: str, *, routed: bool) -> tuple[Level, LevelChooser]:
        levels = self._variant.levels
        if level == "auto":
            if self._router is not None and routed and len(levels) > 1:
                return self._within(self._router.level(cleaned)), "router"
            return self._within(route(cleaned)), "auto"
        chosen = as_level(level)
        if chosen not in levels:
            raise ValueError(
                f"model {self._model!r} has no adapters for level {chosen!r}, only for "
                f"{', '.join(levels)}: ask at that, or convert a SAM3-I checkpoint with its adapters"
            )
        return chosen, "caller"

    def _within(self, level: Level) -> Level:
        return level if level in self._variant.levels else self._variant.levels[0]

    def _boxes(self, boxes: ArrayLike | None, labels: ArrayLike | None) -> BoxPrompt | None:
        if boxes is None:
            if labels is not None:
                raise ValueError("box_labels say what boxes mean, and there are none: pass boxes too")
            return None
        if not self._variant.boxes:
            raise ValueError(
                f"model {self._model!r} takes no boxes (variant {self._name} has no "
                "box_encoder): ask by an instruction alone, or open a bundle exported with boxes"
            )
        prompt = BoxPrompt.of(boxes, labels)
        if len(prompt) > self._variant.boxes:
            raise ValueError(
                f"got {len(prompt)} boxes, model {self._model!r} takes at most "
                f"{self._variant.boxes}: pass fewer, or open a bundle exported with more"
            )
        return prompt


def refuse(unknown: Mapping[str, object]) -> None:
    """Raises TypeError for arguments that `segment` does not take, and names what a renamed one is now."""
    for name in unknown:
        hint = ": it is called box_labels" if name == "labels" else ""
        raise TypeError(f"segment takes no argument {name!r}{hint}")


def check_threshold(value: float) -> None:
    """Raises ValueError unless `value` is 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"threshold must be 0 to 1, got {value}")
