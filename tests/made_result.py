"""Results without a model: discs of different radius."""

import dataclasses

import numpy as np

from sam3i_edge import Result

SIZE = (30, 40)


def logits(count, seed=0):
    """Discs of different radius on a grid of 12 x 12."""
    y, x = np.mgrid[:12, :12]
    centres = np.random.default_rng(seed).uniform(3, 9, (count, 2))
    discs = [2.0 + 0.7 * n - np.hypot(y - cy, x - cx) for n, (cy, cx) in enumerate(centres)]
    return np.array(discs, np.float32).reshape(count, 12, 12)


def make_result(count=3, **changes):
    values = {
        "image_size": SIZE,
        "instruction": "the red star left of the ring",
        "level": "simple",
        "level_chosen_by": "auto",
        "presence": 0.97,
        "scores": np.linspace(0.95, 0.6, count).astype(np.float32),
        "boxes": np.arange(count * 4, dtype=np.float32).reshape(count, 4) / 3,
        "mask_logits": logits(count),
        "threshold": 0.5,
        "truncated": False,
        "tokens_cut": 2,
        "timings_ms": {"encode_image": 12.5, "detect": 3.25},
        "model": "sam3i-nano",
        "device": "cpu",
        "runtime": "onnxruntime",
        "precision": "fp32",
    }
    return Result(**{**values, **changes})


def assert_equal(got, want):
    for field in dataclasses.fields(Result):
        if field.name not in ("mask_logits", "mask_counts", "image"):
            np.testing.assert_equal(getattr(got, field.name), getattr(want, field.name), field.name)
    np.testing.assert_array_equal(got.masks, want.masks)
