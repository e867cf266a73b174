"""Which layers cost how much, and the fewest that must stay float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sam3i_edge.agreement import Instances, Pair, check, compare, quality
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.data.batch import Encode
from sam3i_edge.errors import ParityError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.pipeline import ask
from sam3i_edge.quantize.calibration import detect, encode_image, graph_runner
from sam3i_edge.quantize.spec import QuantSpec, replace_module
from sam3i_edge.runtimes import Progress, part, untold


@dataclass(frozen=True, slots=True)
class Questions:
    """Pairs for trials, with what it takes to ask them. Methods call `progress` after each pair.

    Attributes:
        pairs: consecutive ones may share an image.
        encode: text to token ids int64 [32].
        preprocessing: of the model.
        threshold: least score of an instance, 0..1.
        boxes: box slots of the prompt.
    """

    pairs: Sequence[Pair]
    encode: Encode
    preprocessing: Preprocessing
    threshold: float = 0.5
    boxes: int = 0

    def encode_images(self, model: SAM3I, progress: Progress = untold) -> list[ask.Arrays]:
        """The features of each pair's image; pairs of one image share them."""
        run, found = graph_runner(model, self.boxes), list[ask.Arrays]()
        for number, pair in enumerate(self.pairs):
            shared = number and pair.image is self.pairs[number - 1].image
            found.append(found[-1] if shared else encode_image(run, pair, self.preprocessing))
            progress("encoding images", len(found) / len(self.pairs))
        return found

    def encode_texts(self, model: SAM3I, progress: Progress = untold) -> list[ask.Text]:
        """The text of each pair, encoded."""
        run, found = graph_runner(model, self.boxes), list[ask.Text]()
        for pair in self.pairs:
            found.append(ask.encode_text(run, self.encode(pair.text), pair.level))
            progress("encoding texts", len(found) / len(self.pairs))
        return found

    def detect(
        self,
        model: SAM3I,
        images: Sequence[ask.Arrays],
        texts: Sequence[ask.Text],
        progress: Progress = untold,
    ) -> list[Instances]:
        """What the model finds in encoded pairs."""
        run, found = graph_runner(model, self.boxes), []
        for pair, image, text in zip(self.pairs, images, texts, strict=True):
            outputs = detect(run, pair, image, text, self.boxes)
            size = (pair.image.shape[0], pair.image.shape[1])
            found.append(Instances.of(outputs, size, self.threshold))
            progress("detecting", len(found) / len(self.pairs))
        return found


class Trials:
    """A float model whose layers are made integer and float again, in place.

    Args:
        model: the float model that `spec` was made of.
        spec: all layers quantized.
        questions: what is asked; features of all its pairs are held in memory.
        progress: called after each pair and graph that the float model answers.
    """

    def __init__(
        self, model: SAM3I, spec: QuantSpec, questions: Questions, progress: Progress = untold
    ) -> None:
        self.model, self.questions = model, questions
        self.floats = {name: model.get_submodule(name) for name in spec.layers}
        self.integers = {name: spec.module(name) for name in spec.layers}
        asking = f"asking the float model {len(questions.pairs)} pairs"
        progress(asking, 0.0)
        self.images = questions.encode_images(model, part(progress, 0, 3, asking))
        self.texts = questions.encode_texts(model, part(progress, 1, 3, asking))
        self.reference = questions.detect(model, self.images, self.texts, part(progress, 2, 3, asking))

    def run(self, names: Iterable[str], progress: Progress = untold) -> list[Instances]:
        """What the model finds with just these layers quantized; features of other graphs are reused."""
        names, questions = list(names), self.questions
        images = any(name.startswith(("image_encoder.", "geometry_encoder.")) for name in names)
        texts = any(name.startswith("text_encoder.") for name in names)
        of = 1 + images + texts
        try:
            for name in names:
                replace_module(self.model, name, self.integers[name])
            return questions.detect(
                self.model,
                questions.encode_images(self.model, part(progress, 0, of)) if images else self.images,
                questions.encode_texts(self.model, part(progress, int(images), of)) if texts else self.texts,
                part(progress, of - 1, of),
            )
        finally:
            for name in names:
                replace_module(self.model, name, self.floats[name])

    def losses(self, progress: Progress = untold) -> dict[str, float]:
        """Layer -> 1 - `quality` with that layer alone quantized, greatest first."""
        found, count = {}, len(self.integers)
        words = f"measuring {count} layers on {len(self.questions.pairs)} pairs"
        progress(words, 0.0)
        for number, name in enumerate(self.integers):
            found[name] = 1 - quality(self.reference, self.run([name], part(progress, number, count, words)))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def passes(self, kept_float: Iterable[str], precision: str, progress: Progress = untold) -> bool:
        """Whether the limits of a precision hold with all other layers quantized."""
        kept = set(kept_float)
        quantized = [name for name in self.integers if name not in kept]
        asking = f"asking with {len(quantized)} layers as {precision} {len(self.questions.pairs)} pairs"
        progress(asking, 0.0)
        agreement = compare(self.reference, self.run(quantized, part(progress, 0, 1, asking)))
        try:
            check(agreement, precision)
        except ParityError:
            return False
        return True

    def fewest_float(self, order: Sequence[str], precision: str, progress: Progress = untold) -> list[str]:
        """The fewest layers to keep float so that the limits hold, by halving, then by leaving out singles.

        Args:
            order: layers, most costly first.
            precision: whose limits.
            progress: called after each pair of each trial; the halving is one step, the singles another.

        Returns:
            In `order`; all of it when nothing less passes.
        """
        halving = f"halving {len(order)} layers on {len(self.questions.pairs)} pairs"
        most = 1 + max(len(order) - 1, 0).bit_length()  # trials
        if self.passes((), precision, part(progress, 0, most, halving)):
            return []
        low, high = 0, len(order)  # `low` fails, `high` (all float) passes
        trial = 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.passes(order[:middle], precision, part(progress, trial, most, halving)):
                high = middle
            else:
                low = middle
            trial += 1
        kept = list(order[:high])
        singles = f"trying to do without each of {high} float layers"
        for number, name in enumerate(order[:high]):
            fewer = [other for other in kept if other != name]
            if self.passes(fewer, precision, part(progress, number, high, singles)):
                kept = fewer
        return kept
