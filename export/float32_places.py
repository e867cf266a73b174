"""What stays float32 in graphs of float16, for where it stands in the model."""

from __future__ import annotations

from collections.abc import Sequence

from sam3i_edge.model.decoder import Decoder
from sam3i_edge.model.detector import Detector
from sam3i_edge.model.efficientvit import LinearAttention

# Of the detector's own operations these hold masks, which are large.
_MAPS = ("matmul", "reshape", "transpose")


def stays_float32(modules: Sequence[str], kind: str) -> bool:
    """Whether an operation is a sum over all pixels, which passes float16's 65504, or computes boxes.

    The decoder's and the detector's own operations, outside of their layers, are small and carry boxes:
    coordinates, their logits, sines and logarithms. There float16's steps grow to tenths of a pixel, and move
    scores.

    Args:
        modules: classes that it runs in, outermost first, with their packages or without.
        kind: of operation, in the words of ONNX or Core ML.
    """
    names = [module.rpartition(".")[2] for module in modules]
    if names[-1:] == [Detector.__name__]:
        return kind.lower() not in _MAPS
    return names[-1:] == [Decoder.__name__] or LinearAttention.__name__ in names
