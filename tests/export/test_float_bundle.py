from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.errors import ArtifactError, ExportError, ParityError
from sam3i_edge.export import gate
from sam3i_edge.export.float_bundle import _note, export_bundle
from sam3i_edge.model.weights import load_model
from sam3i_edge.train.presets import NANO


def test_segmenter_runs_the_exported_bundle(exported):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    with Segmenter(exported.bundle, threads=1) as segmenter:
        result = segmenter.segment(image, "the red star left of the ring")
    assert result.level == "simple"
    assert result.masks.shape == (len(result), 50, 70)


def test_weights_in_the_bundle_are_the_models(exported):
    again = load_model(exported.bundle / "weights").state_dict()
    for name, value in exported.model.state_dict().items():
        assert torch.equal(value, again[name]), name


def test_a_variant_that_disagrees_leaves_nothing_but_a_picture(exporting, exported, tmp_path, monkeypatch):
    """The graphs are of a model other than the one they are compared with."""
    run, out = tmp_path / "run", tmp_path / "out" / "bundle"
    shutil.copytree(exported.run, run)
    base = load_file(run / "weights" / "base.safetensors")
    base["detector.mask_decoder.instance_proj.weight"].neg_()
    save_file(base, run / "weights" / "base.safetensors")
    exporting.reuse_graphs(monkeypatch, Bundle.open(exported.bundle), "onnx-fp32")
    with pytest.raises(ParityError, match="iou"):
        export_bundle(run, out, name="x", license_file=run / "LICENSE", pairs=6)
    assert [path.name for path in out.parent.iterdir()] == ["bundle.worst-pair.png"]


def test_missing_run_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"model\.json is missing"):
        export_bundle(tmp_path / "run", tmp_path / "out", name="x", license_file=tmp_path / "LICENSE")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(exported, tmp_path, value):
    run, name = tmp_path / "run", "detector.scoring.query_proj.weight"
    shutil.copytree(exported.run, run)
    tensors = load_file(run / "weights" / "base.safetensors")
    tensors[name][-1, -1] = value
    save_file(tensors, run / "weights" / "base.safetensors")
    with pytest.raises(ArtifactError, match=f"the tensor {name} holds NaN or an infinity"):
        export_bundle(run, tmp_path / "out", name="tiny", license_file=run / "LICENSE", pairs=6)
    assert not (tmp_path / "out").exists()


def test_exported_variant_records_its_agreement(exported):
    recorded = exported.manifest.variants["onnx-fp32"].agreement
    assert recorded == exported.agreement.to_dict()
    assert recorded["pairs"] == 24
    assert recorded["instances"] > 0


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, ("trained on drawn shapes only, not on photographs",)),
        ({"data": "pictures"}, ()),
        ({"start": "weights"}, ()),
    ],
    ids=["drawn", "data", "start"],
)
def test_a_run_that_drew_all_it_saw_says_so_in_its_bundle(tmp_path, changes, notes):
    (tmp_path / "config.json").write_text(json.dumps({**NANO.to_json(), **changes}))
    assert tuple(_note(tmp_path).values()) == notes
    assert _note(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize("note", ["two\nlines", " ", "x" * 301])
def test_a_note_that_does_not_fit_is_refused_before_anything_is_read(tmp_path, note):
    with pytest.raises(ValueError, match="must be one line of 1 to 300 characters"):
        export_bundle(tmp_path / "run", tmp_path / "out", name="x", license_file=tmp_path / "L", note=note)


def test_a_damaged_config_of_a_run(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ExportError, match="is not the config of a training run"):
        _note(tmp_path)


@pytest.mark.slow  # eleven processes, most of which import torch
def test_a_large_model_is_exported_graph_by_graph_to_the_same_files(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "LARGE", 0)
    told: list[str] = []
    manifest, agreement = export_bundle(
        exported.run,
        tmp_path / "out",
        name="tiny",
        license_file=exported.run / "LICENSE",
        pairs=1,
        progress=lambda sentence, _: told.append(sentence),
    )
    # Five graphs exported, and of both models the three that a pair asks.
    assert sum("peak memory" in line for line in told) >= 5 + 2 * 3
    assert agreement.pairs == 1
    data = "onnx-fp32/weights.data"
    assert manifest.files[data] == exported.manifest.files[data]
