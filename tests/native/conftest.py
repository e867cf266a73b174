from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest


def _load(name: str):
    spec = importlib.util.spec_from_file_location(f"native_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def recorded():
    """The module that records answers."""
    return _load("recorded")


@pytest.fixture(scope="session")
def texts():
    """The module that makes texts."""
    return _load("texts")


@pytest.fixture(scope="session")
def building():
    """The module that calls CMake."""
    return _load("building")


@pytest.fixture(scope="session")
def built(building, made_once) -> Path:
    """The build folder of the library with every runtime that is here, its tests and examples."""
    if not building.runtimes():
        pytest.skip("needs ONNX Runtime (ORT_ROOT, see scripts/ort_root.py) or openvino")
    folder = made_once("native-build", lambda folder: None)  # CMake's folders cannot be renamed
    with filelock.FileLock(folder / "lock"):
        if not (folder / "done").exists():
            options = [option for one in building.runtimes().values() for option in one]
            building.configured(folder, "-DSAM3I_EXAMPLES=ON", *building.QUICK, *options)
            building.build(folder)
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def fixtures(made_once, write_tiny_bundle) -> Path:
    """What the programs of native/tests read: two tiny bundles, and masks with their answers."""

    def make(folder: Path) -> None:
        (folder / "answers").mkdir()
        write_tiny_bundle(folder / "tiny")
        write_tiny_bundle(folder / "tiny-boxes", boxes=3)
        (folder / "masks.json").write_text(json.dumps(_masks()))

    return made_once("native-fixtures", make)


def _masks() -> dict[str, list[dict[str, object]]]:
    from sam3i_edge.masks.native import mask_rle_reference
    from sam3i_edge.pipeline.preprocess import to_pixel_values

    rng = np.random.default_rng(5)
    masks, pixels = [], []
    for _ in range(100):
        rows, columns = (int(side) for side in rng.integers(1, 24, 2))
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        logits = (rng.normal(size=(rows, columns)) * 3).round(int(rng.integers(0, 5))).astype(np.float32)
        threshold = float(np.float32(rng.choice([0.0, 0.5, -0.25])))
        runs = mask_rle_reference(logits, (height, width), threshold)
        masks.append(
            {
                "logits": logits.ravel().tolist(), "rows": rows, "columns": columns, "height": height,
                "width": width, "threshold": threshold, "counts": runs["counts"].tolist(),
                "area": runs["area"], "bbox": runs["bbox"],
            }
        )  # fmt: skip
    for size in (1, 7, 32):
        for _ in range(6):
            height, width = (int(side) for side in rng.integers(1, 80, 2))
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            mean, std = (0.5, 0.25, 0.75), (0.5, 0.125, 0.25)
            values = to_pixel_values(image, size, mean, std, implementation="reference")
            pixels.append(
                {
                    "image": image.ravel().tolist(), "height": height, "width": width, "size": size,
                    "mean": mean, "std": std, "values": values.ravel().tolist(),
                }
            )  # fmt: skip
    return {"masks": masks, "pixels": pixels}
