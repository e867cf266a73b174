"""A Swift package that runs exported Core ML packages: code, tokenizer, and a check to be run on a Mac.

Its types are checked on Linux, and its text is run there; with Core ML it has not been run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam3i_edge.agreement import drawn_pairs
from sam3i_edge.bundle.manifest import Manifest
from sam3i_edge.errors import ExportError
from sam3i_edge.export.coreml.mil_reference import MilProgram
from sam3i_edge.levels import LEVELS, rules
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.pipeline.prompt import BoxPrompt
from sam3i_edge.pipeline.tokenizer import Tokenizer

_TEMPLATES = Path(__file__).parent / "swift"
_FILES = (
    "Package.swift",
    "Sources/SAM3I/Configuration.swift",
    "Sources/SAM3I/Instruction.swift",
    "Sources/SAM3I/Levels.swift",
    "Sources/SAM3I/SAM3ISegmenter.swift",
    "Sources/SAM3I/Segmentation.swift",
    "Sources/SAM3I/Tokenizer.swift",
    "Examples/CameraView.swift",
    "check_coreml.py",
)
_TEXT = "the red star"


def write_swift_package(
    folder: Path,
    manifest: Manifest,
    tokenizer: Path,
    packages: Mapping[str, Path],
    *,
    precision: str,
    boxes: int = 0,
) -> list[Path]:
    """Writes the Swift package beside the Core ML packages, which it does not copy.

    With it goes `reference/`: inputs of every graph and the outputs that the evaluator of
    `mil_reference` gives, which `check_coreml.py` compares with Core ML's.

    Args:
        folder: of the Swift package; must not exist.
        manifest: of the model.
        tokenizer: its `tokenizer.json`.
        packages: graph name -> Core ML package; the image encoder takes a pixel buffer.
        precision: of the packages.
        boxes: box slots of the detector's prompt.

    Returns:
        The written files.

    Raises:
        ExportError: `folder` exists, or the image encoder takes no pixel buffer.
    """
    if folder.exists():
        raise ExportError(f"{folder} exists: choose another folder or remove it")
    programs = {graph: MilProgram(path) for graph, path in packages.items()}
    if programs["image_encoder"].interface.image is None:
        raise ExportError(
            f"{packages['image_encoder'].name} takes no pixel buffer, as the Swift code gives it: "
            "export with PackageOptions(image=...)"
        )
    written = []
    for name in _FILES:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_TEMPLATES / name, target)
        written.append(target)
    resources = folder / "Sources" / "SAM3I" / "Resources"
    resources.mkdir()
    models = {graph: path.stem for graph, path in packages.items()}
    content = configuration(manifest, models, precision=precision, boxes=boxes)
    (resources / "sam3i.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(tokenizer, resources / "tokenizer.json")
    written += [resources / "sam3i.json", resources / "tokenizer.json"]
    references = folder / "reference"
    references.mkdir()
    encode = Tokenizer.from_file(
        tokenizer,
        manifest.tokenizer.context_length,
        start_id=manifest.tokenizer.start_id,
        end_id=manifest.tokenizer.end_id,
    )
    for graph, inputs, outputs in _references(programs, manifest, encode, boxes):
        path = references / f"{graph}.npz"
        arrays = {f"in.{name}": value for name, value in inputs.items()}
        arrays |= {f"out.{name}": value for name, value in outputs.items()}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # takes the arrays for its own options
        written.append(path)
    return written


def configuration(
    manifest: Manifest, models: Mapping[str, str], *, precision: str, boxes: int = 0
) -> dict[str, Any]:
    """What `sam3i.json` says, for `Configuration.swift`; `models` is graph name -> name of the model."""
    return {
        "name": manifest.name,
        "precision": precision,
        "notes": list(manifest.notes),
        "image_size": manifest.preprocessing.image_size,
        "context_length": manifest.tokenizer.context_length,
        "start_id": manifest.tokenizer.start_id,
        "end_id": manifest.tokenizer.end_id,
        "pad_id": manifest.tokenizer.pad_id,
        "box_slots": boxes,
        "score_threshold": manifest.thresholds.score,
        "mask_threshold": manifest.thresholds.mask_logit,
        "models": dict(models),
        "level_rules": rules(),
    }


def _references(
    programs: Mapping[str, MilProgram], manifest: Manifest, tokenizer: Tokenizer, boxes: int
) -> list[tuple[str, ask.Arrays, ask.Arrays]]:
    """Graph, inputs and outputs of one drawn picture and one instruction at every level."""
    found: list[tuple[str, ask.Arrays, ask.Arrays]] = []

    def run(graph: str, inputs: ask.Arrays, wanted: Sequence[str]) -> ask.Arrays:
        outputs = programs[graph].run(inputs)
        found.append((graph, inputs, outputs))
        return outputs

    spec = manifest.preprocessing
    picture = drawn_pairs(1)[0].image
    image = ask.encode_image(run, to_pixel_values(picture, spec.image_size, spec.mean, spec.std))
    ids = tokenizer.encode(_TEXT).ids
    texts = [ask.encode_text(run, ids, level) for level in LEVELS if f"text_encoder.{level}" in programs]
    shown = None
    if "box_encoder" in programs:
        height, width = picture.shape[:2]
        prompt = BoxPrompt.of([[width / 4, height / 4, width / 2, height / 2]])
        shown = ask.encode_boxes(run, image, prompt, (height, width), boxes)
    ask.detect(run, image, texts[-1], shown, slots=boxes)
    return found
