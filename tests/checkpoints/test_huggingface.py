"""A folder as transformers writes it, and the Hub's composite layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
import test_transformers_parity as parity

from sam3i_edge.checkpoints import load_checkpoint, read_checkpoint
from sam3i_edge.checkpoints.completion import LAYOUTS
from sam3i_edge.checkpoints.keys import convert_keys
from sam3i_edge.errors import ArtifactError


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    return parity._theirs()


@pytest.fixture(scope="module")
def folder(theirs: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf")
    theirs.save_pretrained(path)
    return path


def test_a_saved_model_converts_by_its_own_config(folder, theirs):
    checkpoint = read_checkpoint(folder)
    assert checkpoint.config == parity.CONFIG
    assert set(checkpoint.dropped) == {
        "coarsest pyramid level, computed and thrown away",
        "CLIP's pooled projection, unused",
        "third pixel-decoder stage, never run",
    }
    assert checkpoint.notes["layout"] == "transformers' Sam3Model"
    model = load_checkpoint(folder)
    assert model.levels == ("concept",)
    # That the names are right, test_transformers_parity.py shows by the model's outputs.
    want = convert_keys(theirs.state_dict(), LAYOUTS).tensors
    assert checkpoint.tensors.keys() == want.keys()
    assert all(torch.equal(value, want[name]) for name, value in checkpoint.tensors.items())


def test_the_hubs_composite_and_shards(folder, tmp_path):
    """`facebook/sam3` holds the video model: the detector under a prefix, beside a tracker."""
    state = load_file(folder / "model.safetensors")
    composite = {f"detector_model.{name}": value for name, value in state.items()}
    composite |= {"tracker_model.memory.weight": torch.zeros(2), "tracker_neck.conv.bias": torch.zeros(2)}
    names = sorted(composite)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: composite[name] for name in part}, tmp_path / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": config}))
    got, want = read_checkpoint(tmp_path), read_checkpoint(folder)
    assert got.config == want.config
    assert len(got.dropped["video tracker"]) == 2
    assert all(torch.equal(got.tensors[name], value) for name, value in want.tensors.items())
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model-2\.safetensors cannot be read as safetensors"):
        read_checkpoint(tmp_path)
