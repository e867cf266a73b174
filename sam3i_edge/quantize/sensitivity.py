"""Which layers cost how much, and the fewest that must stay float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sam3i_edge.agreement import Instances, Pair, check, compare, quality
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.data.dataset import Encode
from sam3i_edge.errors import ParityError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.pipeline import ask
from sam3i_edge.quantize.calibration import detect, encode_image, graph_runner
from sam3i_edge.quantize.spec import QuantSpec, replace_module

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Questions:
    """Pairs for trials, with what it takes to ask them. They are not those of the gate.

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

    def encode_images(self, model: SAM3I) -> list[ask.Arrays]:
        """The features of each pair's image; pairs of one image share them."""
        run, found = graph_runner(model, self.boxes), list[ask.Arrays]()
        for number, pair in enumerate(self.pairs):
            shared = number and pair.image is self.pairs[number - 1].image
            found.append(found[-1] if shared else encode_image(run, pair, self.preprocessing))
        return found

    def encode_texts(self, model: SAM3I) -> list[ask.Text]:
        """The text of each pair, encoded."""
        run = graph_runner(model, self.boxes)
        return [ask.encode_text(run, self.encode(pair.text), pair.level) for pair in self.pairs]

    def detect(
        self, model: SAM3I, images: Sequence[ask.Arrays], texts: Sequence[ask.Text]
    ) -> list[Instances]:
        """What the model finds in encoded pairs."""
        run, found = graph_runner(model, self.boxes), []
        for pair, image, text in zip(self.pairs, images, texts, strict=True):
            outputs = detect(run, pair, image, text, self.boxes)
            size = (pair.image.shape[0], pair.image.shape[1])
            found.append(Instances.of(outputs, size, self.threshold))
        return found


class Trials:
    """A float model whose layers are made integer and float again, in place.

    Args:
        model: the float model that `spec` was made of.
        spec: all layers quantized.
        questions: what is asked; features of all its pairs are held in memory.
    """

    def __init__(self, model: SAM3I, spec: QuantSpec, questions: Questions) -> None:
        self.model, self.questions = model, questions
        self.floats = {name: model.get_submodule(name) for name in spec.layers}
        self.integers = {name: spec.module(name) for name in spec.layers}
        self.images, self.texts = questions.encode_images(model), questions.encode_texts(model)
        self.reference = questions.detect(model, self.images, self.texts)

    def run(self, names: Iterable[str]) -> list[Instances]:
        """What the model finds with just these layers quantized; features of other graphs are reused."""
        names, questions = list(names), self.questions
        images = any(name.startswith(("image_encoder.", "geometry_encoder.")) for name in names)
        texts = any(name.startswith("text_encoder.") for name in names)
        try:
            for name in names:
                replace_module(self.model, name, self.integers[name])
            return questions.detect(
                self.model,
                questions.encode_images(self.model) if images else self.images,
                questions.encode_texts(self.model) if texts else self.texts,
            )
        finally:
            for name in names:
                replace_module(self.model, name, self.floats[name])

    def losses(self, progress: Progress | None = None) -> dict[str, float]:
        """Layer -> 1 - `quality` with that layer alone quantized, greatest first."""
        found = {}
        for number, name in enumerate(self.integers, 1):
            found[name] = 1 - quality(self.reference, self.run([name]))
            if progress:
                progress(number, len(self.integers))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def passes(self, kept_float: Iterable[str], precision: str) -> bool:
        """Whether the limits of a precision hold with all other layers quantized."""
        kept = set(kept_float)
        agreement = compare(self.reference, self.run(name for name in self.integers if name not in kept))
        try:
            check(agreement, precision)
        except ParityError:
            return False
        return True

    def fewest_float(self, order: Sequence[str], precision: str) -> list[str]:
        """The fewest layers to keep float so that the limits hold, by halving, then by leaving out singles.

        Args:
            order: layers, most costly first.
            precision: whose limits.

        Returns:
            In `order`; all of it when nothing less passes.
        """
        if self.passes((), precision):
            return []
        low, high = 0, len(order)  # `low` fails, `high` (all float) passes
        while high - low > 1:
            middle = (low + high) // 2
            if self.passes(order[:middle], precision):
                high = middle
            else:
                low = middle
        kept = list(order[:high])
        for name in order[:high]:
            fewer = [other for other in kept if other != name]
            if self.passes(fewer, precision):
                kept = fewer
        return kept
