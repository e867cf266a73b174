from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.weights import halve_weights, open_weights, write_safetensors


def header(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), 8 + length, content


def test_int8_stays_int8_and_comes_last(tmp_path):
    tensors = {
        "a": torch.randint(-128, 128, (3, 5), dtype=torch.int8),
        "b": torch.randn(7),
        "c": torch.randint(-128, 128, (1,), dtype=torch.int8),
        "d": torch.randn(2, 3).half(),
        "e": torch.tensor(1.5),
        "f": torch.randint(-8, 8, (4, 4), dtype=torch.int8).T,  # not contiguous
        "g": torch.zeros(0, dtype=torch.int8),
    }
    write_safetensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == (torch.int8 if value.dtype == torch.int8 else torch.float32), name
        assert torch.equal(found[name], value.to(found[name].dtype)), name
    described, start, content = header(tmp_path / "x.safetensors")
    for name, entry in described.items():
        begin, _ = entry["data_offsets"]
        assert entry["dtype"] == ("I8" if tensors[name].dtype == torch.int8 else "F32")
        assert entry["dtype"] == "I8" or (start + begin) % 4 == 0, name
    assert len(content) - start == max(entry["data_offsets"][1] for entry in described.values())


def test_every_int8_value_survives(tmp_path):
    values = torch.from_numpy(np.arange(-128, 128).astype(np.int8))
    write_safetensors(tmp_path / "x.safetensors", {"all": values})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["all"], values)


def test_halved_weights_are_read_as_float32(tmp_path):
    values = torch.randn(64, 64)
    save_file({"x": values}, tmp_path / "base.safetensors")
    before = (tmp_path / "base.safetensors").stat().st_size
    halve_weights(tmp_path)
    again = open_weights(tmp_path)["x"]
    assert again.dtype == torch.float32
    assert torch.equal(again, values.half().float())
    assert (tmp_path / "base.safetensors").stat().st_size < 0.52 * before


def test_what_float16_cannot_hold_is_refused_by_name(tmp_path):
    save_file({"x": torch.tensor([1.0, 70_000.0])}, tmp_path / "base.safetensors")
    with pytest.raises(ArtifactError, match="the tensor x holds"):
        halve_weights(tmp_path)
    assert load_file(tmp_path / "base.safetensors")["x"].dtype == torch.float32
