"""The agreement gate: the float model's answers, and what every variant must keep of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from sam3i_edge.agreement import Agreement, Instances, Pair, check, compare, model_pairs, pair_quality
from sam3i_edge.bundle.manifest import Preprocessing, TokenizerSpec
from sam3i_edge.errors import ParityError
from sam3i_edge.export.staged import GraphSource, TorchGraphs, answers
from sam3i_edge.masks import overlay
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.weights import build_model, check_finite, open_weights, read_config
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.runtimes import Progress

# A model of more float32 bytes is handled graph by graph in processes of their own.
LARGE = 1 << 28
PARITY_PAIRS = 240


@dataclass(slots=True)
class Gate:
    """The float model's answers to the pairs that every variant must agree on. Made by `open_gate`.

    Attributes:
        weights: folder of the float model. config: its sizes.
        parameters: how many it has.
        tokenizer, preprocessing: of the model.
        threshold: least score of an instance, 0..1.
        boxes: box slots of the graphs.
        pairs: what is asked.
        tell: called with a sentence on each step, and the share of it that is done.
        picture: where the worst pair is drawn when a variant fails.
        compared: the agreement found last, also of a variant that fails.
    """

    weights: Path
    config: ModelConfig
    parameters: int
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    threshold: float
    boxes: int
    pairs: Sequence[Pair]
    tell: Progress
    picture: Path
    compared: Agreement | None = None
    _reference: list[Instances] = field(default_factory=list)

    @property
    def isolate(self) -> bool:
        """Whether each graph is handled in a process of its own."""
        return 4 * self.parameters > LARGE

    def reference(self) -> list[Instances]:
        """The float model's answers, computed once."""
        if not self._reference:
            self._reference = self.ask(TorchGraphs(self.weights, self.config, self.boxes), "the float model")
        return self._reference

    def ask(self, source: GraphSource, name: str) -> list[Instances]:
        """The answers of other graphs to the same pairs."""
        asking = f"asking {name} {len(self.pairs)} pairs"
        self.tell(asking, 0.0)
        return answers(
            source,
            self.pairs,
            self.tokenizer,
            self.preprocessing,
            self.threshold,
            self.boxes,
            scratch=self.weights.parent,  # goes with the folder where this process is killed
            isolate=self.isolate,
            progress=lambda graph, share: self.tell(f"{asking}: {graph}" if self.isolate else asking, share),
        )

    def pass_or_raise(self, source: GraphSource, name: str, precision: str) -> Agreement:
        """Compares, and refuses graphs that do not keep the limits of their precision.

        Raises:
            ParityError: the first limit that is missed; the message names the worst pair and its picture.
        """
        reference, candidate = self.reference(), self.ask(source, name)
        self.compared = agreement = compare(reference, candidate)
        try:
            check(agreement, precision)
        except ParityError as error:
            worst = min(range(len(self.pairs)), key=lambda n: pair_quality(reference[n], candidate[n]))
            pair = self.pairs[worst]
            draw_pair(pair, reference[worst], candidate[worst], self.picture)
            error.args = (
                f"{error.args[0]}; the worst pair is number {worst}, {pair.text!r} at level {pair.level}, "
                f"drawn in {self.picture}",
            )
            raise
        return agreement


def open_gate(
    folder: Path,
    tokenizer: TokenizerSpec,
    preprocessing: Preprocessing,
    *,
    threshold: float,
    boxes: int,
    pairs: int,
    tell: Progress,
    picture: Path,
) -> Gate:
    """Makes the gate of a bundle that is being written.

    Args:
        folder: of the bundle: its float weights and its tokenizer are there.
        tokenizer: what `bundle.json` says of it.
        preprocessing: how images become pixel values.
        threshold: least score of an instance, 0..1.
        boxes: box slots of the graphs.
        pairs: how many are drawn, with the seed that is kept for gates.
        tell: called with a sentence on each step, and the share of it that is done.
        picture: where the worst pair is drawn when a variant fails.

    Raises:
        ArtifactError: the weights are damaged, or hold NaN or an infinity.
    """
    weights = folder / "weights"
    config, tensors = read_config(weights), open_weights(weights)
    check_finite(tensors)
    return Gate(
        weights,
        config,
        sum(p.numel() for p in build_model(config, tensors).parameters()),
        Tokenizer.from_file(
            folder / tokenizer.file,
            tokenizer.context_length,
            start_id=tokenizer.start_id,
            end_id=tokenizer.end_id,
            pad_id=tokenizer.pad_id,
        ),
        preprocessing,
        threshold,
        boxes,
        model_pairs(pairs, config, boxes),
        tell,
        picture,
    )


def draw_pair(pair: Pair, reference: Instances, candidate: Instances, path: Path) -> None:
    """Writes a picture: what the float model found, and beside it what the variant found."""
    sides = [
        overlay.draw(pair.image, found.masks, found.boxes, found.scores, title=f"{who}: {pair.text}")
        for who, found in (("float", reference), ("variant", candidate))
    ]
    height = max(side.shape[0] for side in sides)
    padded = [cv2.copyMakeBorder(s, 0, height - s.shape[0], 0, 0, cv2.BORDER_CONSTANT) for s in sides]
    overlay.write(np.ascontiguousarray(np.concatenate(padded, axis=1)), path)
