"""A model to a bundle: weights, tokenizer, licence, and a verified variant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from sam3i_edge.agreement import Agreement
from sam3i_edge.bundle.manifest import (
    NOTE,
    License,
    Manifest,
    Preprocessing,
    Thresholds,
    TokenizerSpec,
    check_note,
)
from sam3i_edge.bundle.writing import BundleFolder, new_bundle
from sam3i_edge.checkpoints.load import Checkpoint
from sam3i_edge.checkpoints.tokenizer_file import special_ids, write_tokenizer
from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export.gate import PARITY_PAIRS, open_gate
from sam3i_edge.export.isolated import done
from sam3i_edge.export.targets import write_variant
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.weights import (
    WEIGHT_FILES,
    group_of,
    halve_weights,
    load_model,
    read_config,
    write_config,
    write_safetensors,
)
from sam3i_edge.runtimes import Progress


def export_bundle(
    run: Path,
    out: Path,
    *,
    name: str,
    license_file: Path,
    license_name: str = "Apache-2.0",
    threshold: float = 0.5,
    pairs: int = PARITY_PAIRS,
    boxes: int = 0,
    half: bool = False,
    note: str = "",
    version: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, Agreement]:
    """Exports a training run as a bundle with an fp32 ONNX variant.

    The graphs are run against the model on `pairs` drawn (image, instruction) pairs before anything is named
    finished; a variant that misses the fp32 limits leaves nothing behind.

    Args:
        run: folder of a run: `weights/` and `tokenizer.json`.
        out: folder of the bundle.
        name: of the model.
        license_file: terms of the weights; copied in.
        license_name: their short name.
        threshold: default least score, 0..1.
        pairs: at least 1; 200 or more for a release.
        boxes: most boxes of one prompt; 0 for a model that was never trained on boxes.
        half: keep the weights in float16; all variants are made from, and compared with, what that rounds to.
        note: one line that users must know of the model; "": of drawn shapes, where the run saw these alone.
        version: of the model, kept in `provenance`; "" for none.
        overwrite: replace `out` when it is a bundle.
        progress: called with a sentence on each step, and the share of it that is done.

    Returns:
        The manifest and the agreement.

    Raises:
        ExportError: nothing to compare. ParityError: the graphs disagree with the model.
        ArtifactError: `out` may not be written, or `run` cannot be read.
        ValueError: `note` is not one line of at most 300 characters.
    """
    check_note(note or "-")
    for needed in (run / "weights" / "model.json", run / "tokenizer.json", license_file):
        if not needed.is_file():
            raise ExportError(f"{needed} is missing: give the folder of a training run and a licence file")
    load_model(run / "weights")
    config = read_config(run / "weights")
    start, end = special_ids(run / "tokenizer.json")
    with new_bundle(out, overwrite=overwrite) as folder:
        shutil.copyfile(run / "tokenizer.json", folder.path / "tokenizer.json")
        shutil.copytree(run / "weights", folder.path / "weights")
        if half:
            halve_weights(folder.path / "weights")
        return _finish(
            folder,
            out,
            config,
            TokenizerSpec(context_length=config.text_context, start_id=start, end_id=end),
            name=name,
            license_file=license_file,
            license_name=license_name,
            threshold=threshold,
            pairs=pairs,
            boxes=boxes,
            provenance={
                **({NOTE: note} if note else _note(run)),
                **({"version": version} if version else {}),
            },
            tell=progress or (lambda *_: None),
        )


def _note(run: Path) -> dict[str, str | int | float]:
    """What users must know of a run that drew all its pictures and started from nothing."""
    config = run / "config.json"
    if not config.is_file():
        return {}
    try:
        kept = json.loads(config.read_text(encoding="utf-8"))
        drawn = not kept["data"] and not kept["start"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{config} is not the config of a training run ({error}): restore it") from error
    return {NOTE: "trained on drawn shapes only, not on photographs"} if drawn else {}


def convert_bundle(
    checkpoint: Checkpoint,
    tokenizer: Path,
    out: Path,
    *,
    name: str,
    license_file: Path,
    license_name: str = "SAM License",
    threshold: float = 0.5,
    pairs: int = PARITY_PAIRS,
    boxes: int = 8,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, Agreement]:
    """Writes an official checkpoint as a bundle with an fp32 ONNX variant, checked as in `export_bundle`.

    Tensors are written one at a time and graphs are handled one at a time, large ones in processes of their
    own: no process holds more than one graph.

    Args:
        checkpoint: opened by `read_checkpoint`.
        tokenizer: CLIP's merges file, a `tokenizer.json`, or a folder that holds one.
        out: folder of the bundle.
        name: of the model.
        license_file: terms of the weights; copied in.
        license_name: their short name.
        threshold: default least score, 0..1.
        pairs: at least 1.
        boxes: most boxes of one prompt; 0 leaves box prompts out.
        overwrite: replace `out` when it is a bundle.
        progress: called with a sentence on each step, and the share of it that is done.

    Returns:
        The manifest and the agreement.

    Raises:
        ExportError, ParityError: as in `export_bundle`.
        ArtifactError: `out` may not be written, or the disk has too little room.
    """
    tell = progress or (lambda *_: None)
    config = checkpoint.config
    if boxes and not config.geometry:
        raise ArtifactError(
            f"{boxes} boxes need a geometry encoder, which this checkpoint lacks: give --base sam3.pt to "
            "complete it, or --boxes 0"
        )
    if not license_file.is_file():
        raise ArtifactError(
            f"the licence {license_file} does not exist: give the text that came with the weights"
        )
    size = 4 * sum(value.numel() for value in checkpoint.tensors.values())
    _check_room(out, size, config, pairs)
    with new_bundle(out, overwrite=overwrite) as folder:
        start, end = write_tokenizer(tokenizer, folder.path / "tokenizer.json", config.vocab_size)
        weights = folder.path / "weights"
        weights.mkdir()
        for file, groups in WEIGHT_FILES.items():
            part = {key: value for key, value in checkpoint.tensors.items() if group_of(key) in groups}
            if part:
                mib = sum(value.numel() for value in part.values()) / 2**18
                tell(f"writing weights/{file}.safetensors, {mib:,.0f} MiB", 0.0)
                write_safetensors(weights / f"{file}.safetensors", part)
        write_config(weights, config)
        tell(done("weights written", peak_memory(), isolate=True), 1.0)
        provenance: dict[str, str | int | float] = {
            **checkpoint.notes,
            "folded_adapters": checkpoint.folded_adapters,
            "folded_bytes_saved": checkpoint.folded_bytes,
            **{f"dropped: {why}": len(keys) for why, keys in checkpoint.dropped.items()},
        }
        return _finish(
            folder,
            out,
            config,
            TokenizerSpec(context_length=config.text_context, start_id=start, end_id=end),
            name=name,
            license_file=license_file,
            license_name=license_name,
            threshold=threshold,
            pairs=pairs,
            boxes=boxes,
            provenance=provenance,
            tell=tell,
        )


def _finish(
    folder: BundleFolder,
    out: Path,
    config: ModelConfig,
    tokenizer: TokenizerSpec,
    *,
    name: str,
    license_file: Path,
    license_name: str,
    threshold: float,
    pairs: int,
    boxes: int,
    provenance: Mapping[str, str | int | float],
    tell: Progress,
) -> tuple[Manifest, Agreement]:
    """Exports, verifies and closes a bundle that has its weights and its tokenizer."""
    shutil.copyfile(license_file, folder.path / "LICENSE")
    spec = Preprocessing(image_size=config.image_size)
    gate = open_gate(
        folder.path,
        tokenizer,
        spec,
        threshold=threshold,
        boxes=boxes,
        pairs=pairs,
        tell=tell,
        picture=out.absolute().with_name(f"{out.name}.worst-pair.png"),
    )
    variant_name, variant, agreement = write_variant(folder.path, gate, "onnx", "fp32")
    manifest = folder.finish(
        name=name,
        model=config.to_dict(),
        preprocessing=spec,
        tokenizer=tokenizer,
        thresholds=Thresholds(score=threshold),
        license=License(name=license_name),
        provenance={"parameters": gate.parameters, "torch": torch.__version__, **provenance},
        variants={variant_name: variant},
    )
    return manifest, agreement


def _check_room(out: Path, size: int, config: ModelConfig, pairs: int) -> None:
    """Weights, graphs with as much again, and the features of the images that the gate encodes."""
    features = 4 * config.d_model * (16 + 4 + 1) * config.grid**2
    needed = 2 * size + features * (pairs // 5 + 1)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ArtifactError(
            f"{parent} has {free / 1e9:.1f} GB free, the conversion needs {needed / 1e9:.1f} GB: "
            "choose another disk, or fewer --pairs"
        )
