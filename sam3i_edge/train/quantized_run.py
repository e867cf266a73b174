"""What a quantization-aware run adds to training: its start, its teacher, and what it writes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from sam3i_edge.agreement import Pair, model_pairs
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.data.batch import BatchShape, Encode
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_weights
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.qat import changed_share, enable, insert_trained_layers, to_spec
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.recorded_pairs import recorded_pairs
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import Progress
from sam3i_edge.train.distillation import Distillation
from sam3i_edge.train.run_config import TrainConfig
from sam3i_edge.train.run_data import RunData

_CALIBRATION_SEED = 1  # of drawn pairs; the agreement gate's are of seed 0
_CALIBRATION_STREAM = 1_001  # of batches; those of training and validation have others


class QuantizedRun:
    """The quantization of a run.

    Args:
        config: with a recipe.
        sizes: of the model.
        encode: text to token ids int64 [32].
        data: of the run.
        folder: of the run; `quant/` in it holds what post-training quantization gave and what training gave.
    """

    def __init__(
        self, config: TrainConfig, sizes: ModelConfig, encode: Encode, data: RunData, folder: Path
    ) -> None:
        self.config, self.sizes, self.encode, self.data = config, sizes, encode, data
        self.ptq_path = folder / "quant" / "ptq.safetensors"
        self.path = folder / "quant" / f"{config.qat.recipe}.safetensors"

    def teacher(self) -> Distillation:
        """The float model that the run starts from."""
        model = SAM3I(self.sizes)
        load_weights(model, Path(self.config.start))
        return Distillation(model, self.config.qat.teacher)

    def start(self, progress: Progress) -> SAM3I:
        """Quantizes the start after training, writes that, and gives the model to train.

        Args:
            progress: called after each pair and layer.
        """
        model = SAM3I(self.sizes)
        load_weights(model, Path(self.config.start))
        pairs = self._pairs(self.config.qat.calibration_pairs)
        preprocessing = Preprocessing(image_size=self.sizes.image_size)
        recipe = RECIPES[self.config.qat.recipe]
        prepared = Prepared(
            copy.deepcopy(model).eval(), recipe, pairs, self.encode, preprocessing, progress=progress
        )
        spec = prepared.quantize(progress=progress)
        self.ptq_path.parent.mkdir(parents=True, exist_ok=True)
        spec.save(self.ptq_path)
        return insert_trained_layers(prepared.model.requires_grad_(True), spec)

    def _pairs(self, wanted: int) -> list[Pair]:
        """What activations are measured on."""
        if not self.config.data:
            return model_pairs(wanted, self.sizes, seed=_CALIBRATION_SEED)
        if isinstance(self.config.data, str) and self.data.annotated:
            return recorded_pairs(Path(self.config.data), wanted)
        shape = BatchShape(images=1, image_size=self.sizes.image_size, mask_size=self.sizes.mask_size)
        batches = self.data.batches(
            shape,
            self.encode,
            stream=_CALIBRATION_STREAM,
            level_weights=dict.fromkeys(LEVELS if self.sizes.adapter_dim else LEVELS[:1], 1.0),
            none_share=0.2,
            part="train",
        )
        rng = np.random.default_rng([self.config.seed, _CALIBRATION_STREAM])
        samples = [batches.sample(place, rng) for place in range(-(-wanted // shape.instructions))]
        pairs = [Pair(s.image, i.text, i.level, i.granularity) for s in samples for i in s.instructions]
        return pairs[:wanted]

    def structure(self) -> SAM3I:
        """The model to train with the scales of an earlier `start`; its weights come from a checkpoint."""
        return insert_trained_layers(SAM3I(self.sizes), QuantSpec.load(self.ptq_path))

    def round(self, model: SAM3I, on: bool) -> None:
        """Turns rounding on or off."""
        enable(model, on)

    def write(self, model: SAM3I) -> dict[str, float]:
        """Writes the quantized model, and tells the share of integers that training changed."""
        ptq = QuantSpec.load(self.ptq_path)
        spec = to_spec(model, ptq.recipe, {**ptq.notes, "trained": True})
        share = changed_share(ptq, spec)
        spec.save(self.path)
        return {"changed_integers": share}
