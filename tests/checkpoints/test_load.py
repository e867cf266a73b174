"""What users hold, opened: every container and layout, and everything that can be wrong with it."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from official_files import FOLDER
from sam3i_edge.checkpoints import load_checkpoint, read_checkpoint
from sam3i_edge.errors import ArtifactError
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.sam3i import adapter_of
from sam3i_edge.model.weights import write_safetensors

STAGE3, BASE, CONFIG = FOLDER / "sam3i_stage3.pt", FOLDER / "sam3_base.pt", FOLDER / "config.json"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return torch.load(STAGE3, weights_only=True)["model"]


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    return torch.load(BASE, weights_only=True)


@pytest.mark.parametrize("level", LEVELS)
def test_the_python_door_gives_the_official_numbers(level):
    model = load_checkpoint(STAGE3, CONFIG)
    assert model.levels == LEVELS
    assert not model.training
    inputs, want = np.load(FOLDER / "inputs.npz"), np.load(FOLDER / "outputs.npz")
    ids = torch.from_numpy(inputs["token_ids"][:1])
    with torch.no_grad():
        *maps, cls_token = model.image_encoder(torch.from_numpy(inputs["pixel_values"]))
        text = model.text_encoder(ids, level=level)
        prompt = torch.cat((text, cls_token), dim=1)
        mask = torch.cat((ids != 0, torch.ones(1, 1, dtype=torch.bool)), dim=1)
        scores, boxes, masks, presence = model.detector(
            *maps, prompt, mask, torch.tensor([LEVELS.index(level)])
        )
    assert np.linalg.norm(text[0].numpy() - want[f"{level}.p0.text_features"]) < 1e-4
    assert presence.item() == pytest.approx(want[f"{level}.p0.presence_logit"].item(), abs=1e-5)
    every = torch.from_numpy(want[f"{level}.p0.pred_logits"]).sigmoid() * presence.sigmoid()
    torch.testing.assert_close(scores, every.sort(descending=True).values, rtol=0, atol=2e-5)
    assert boxes.shape == (1, 20, 4)
    assert masks.shape == (1, 20, 64, 64)


def test_containers_do_not_matter(tmp_path, state, base):
    want = read_checkpoint(STAGE3, config=CONFIG).tensors
    files = {
        "flat.pt": dict(state),
        "wrapped.bin": {"model": {f"module.{key}": value for key, value in state.items()}},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    save_file(
        {key: value.clone().contiguous() for key, value in state.items() if not value.is_complex()},
        tmp_path / "weights.dat",
    )
    torch.save(dict(state), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for path in sorted(tmp_path.iterdir()):
        got = read_checkpoint(path, config=CONFIG).tensors
        assert got.keys() == want.keys(), path
        assert all(torch.equal(value, want[name]) for name, value in got.items()), path
    got = read_checkpoint(BASE, config=CONFIG)
    assert got.config.adapter_dim == 0
    assert got.tensors.keys() == {name for name in want if adapter_of(name) is None}


def test_base_and_adapters_as_two_files(tmp_path, state):
    want = read_checkpoint(STAGE3, config=CONFIG)
    only = {key: value for key, value in state.items() if "adapter" in key and "projector" not in key}
    torch.save(only, tmp_path / "adapters.pt")
    for adapters in (tmp_path / "adapters.pt", STAGE3):
        got = read_checkpoint(BASE, adapters=adapters, config=CONFIG)
        assert got.config == want.config
        assert all(torch.equal(got.tensors[name], value) for name, value in want.tensors.items())
    assert len(got.dropped["base weights of the adapters' file; the base comes from the other"]) > 300
    with pytest.raises(ArtifactError, match="both files hold adapters"):
        read_checkpoint(STAGE3, adapters=STAGE3, config=CONFIG)
    with pytest.raises(ArtifactError, match="holds no adapters"):
        read_checkpoint(BASE, adapters=BASE, config=CONFIG)


def test_nothing_is_decided_by_the_file_name(tmp_path):
    """The released loader overwrites adapters when the path holds no 'sam3i_3'."""
    want = read_checkpoint(STAGE3, config=CONFIG).tensors
    for name in ("sam3i_1-2.pt", "sam3.pt", "x"):
        (tmp_path / name).write_bytes(STAGE3.read_bytes())
        got = read_checkpoint(tmp_path / name, config=CONFIG).tensors
        assert all(torch.equal(value, want[key]) for key, value in got.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, base, dtype):
    half = {key: value if value.is_complex() else value.to(dtype) for key, value in base.items()}
    torch.save(half, tmp_path / "half.pt")
    checkpoint = read_checkpoint(tmp_path / "half.pt", config=CONFIG)
    assert checkpoint.notes["dtypes"] == str(dtype).removeprefix("torch.")
    model = load_checkpoint(tmp_path / "half.pt", CONFIG)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    name = "detector.decoder.query_embed.weight"
    assert torch.equal(model.detector.decoder.query_embed.weight, checkpoint.tensors[name].float())


def test_writing_and_opening_again_changes_no_bit(tmp_path):
    first = read_checkpoint(STAGE3, config=CONFIG)
    write_safetensors(tmp_path / "all.safetensors", first.tensors)
    from safetensors.torch import load_file

    again = load_file(tmp_path / "all.safetensors")
    assert again.keys() == first.tensors.keys()
    for name, value in again.items():
        assert value.numpy().tobytes() == first.tensors[name].contiguous().numpy().tobytes(), name


def test_what_the_tensors_say_wins_and_what_they_do_not_say_is_asked_for(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"no checkpoint of official size .*tell vit_heads.*give --config"
    ):
        read_checkpoint(STAGE3)
    with pytest.raises(ArtifactError, match="the config says n_heads 3, the tensors say 4"):
        read_checkpoint(STAGE3, config={"n_heads": 3})
    with pytest.raises(
        ArtifactError, match="200 px is not possible: want a multiple of 112, the nearest is 224"
    ):
        read_checkpoint(STAGE3, config=CONFIG, resolution=200)
    assert read_checkpoint(STAGE3, config=CONFIG, resolution=112).config.image_size == 112
    for given, message in (
        (
            {"window_size": 0},
            "the config says: window_size must be a whole number from 1 to 1,048,576, got 0",
        ),
        ({"image_size": 10**6}, "image_size must be a whole number from 1 to 8,192, got 1000000"),
        ({"adapter_scale": float("nan")}, "adapter_scale must be a number within ±1,048,576, got nan"),
        ({"adapter_scale": 10**30}, "adapter_scale must be a number within ±1,048,576, got 10{30}"),
        ({"vit_global_blocks": 3}, "vit_global_blocks must be a list of numbers, got 3"),
    ):
        with pytest.raises(ArtifactError, match=message):
            read_checkpoint(STAGE3, config=json.loads(CONFIG.read_text())["dims"] | given)
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ArtifactError, match="cannot read the config"):
        read_checkpoint(STAGE3, config=tmp_path / "deep.json")
    (tmp_path / "odd.json").write_text(json.dumps({"dims": {"vit_wdith": 4}}))
    with pytest.raises(ArtifactError, match="names unknown sizes: vit_wdith"):
        read_checkpoint(STAGE3, config=tmp_path / "odd.json")


class _Code:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def _damaged(tmp_path: Path, state: dict[str, torch.Tensor]) -> dict[str, tuple[Path, str]]:
    def path(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    def saved(content: object) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    whole = STAGE3.read_bytes()
    key = "transformer.decoder.query_embed.weight"
    table = next(name for name in state if name.endswith("trunk.pos_embed"))
    folder = tmp_path / "folder"
    folder.mkdir()
    index = tmp_path / "index"
    index.mkdir()
    (index / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../sam3.safetensors"}})
    )
    return {
        "cut short": (path("cut.pt", whole[: len(whole) // 2]), "cut short or damaged"),
        "empty": (path("empty.pt", b""), "cut short or damaged"),
        "web page": (
            path("page.pt", b"<!DOCTYPE html><html>log in</html>"),
            "is a web page and no checkpoint",
        ),
        "code": (path("code.pt", pickle.dumps(_Code())), "holds code, of which nothing was run"),
        "code in a zip": (
            path("code2.pt", saved({"model": _Code()})),
            "holds code, of which nothing was run",
        ),
        "cut safetensors": (path("cut.safetensors", b"\x40" + b"\0" * 7 + b'{"a":'), "cut short or damaged"),
        "no tensors": (path("empty_dict.pt", saved({"epoch": 3})), "holds no tensors; its entries: epoch"),
        "a tensor": (path("tensor.pt", saved(torch.zeros(3))), "holds a Tensor, want a state dict"),
        "other model": (path("other.pt", saved({"fc.weight": torch.zeros(3)})), "belongs to a known layout"),
        "unknown key": (path("key.pt", saved({**state, "head.x": torch.zeros(1)})), "are unknown: head.x"),
        "other backbone": (
            path(
                "student.pt", saved({"backbone.vision_backbone.trunk.stages.0.conv.weight": torch.zeros(3)})
            ),
            "image backbone is none of ours",
        ),
        "missing": (
            path("missing.pt", saved({k: v for k, v in state.items() if not k.endswith("norm1.bias")})),
            "tensors are missing: .*norm1.bias",
        ),
        "shape": (
            path("shape.pt", saved({**state, key: torch.zeros(20, 31)})),
            r"\(20, 31\), want \(20, 32\)",
        ),
        "dtype": (path("dtype.pt", saved({**state, key: torch.zeros(20, 32).int()})), "int32, want a float"),
        "sparse": (
            path("sparse.pt", saved({**state, key: torch.eye(20, 32).to_sparse()})),
            f"holds sparse, quantized or empty tensors, want plain ones: {key}",
        ),
        "a position table of one dimension": (
            path("table.pt", saved({**state, table: torch.zeros(577)})),
            r"pos_embed has shape \(577,\), which is no table",
        ),
        "twice": (
            path("twice.pt", saved({**state, f"detector.{key}": state[key]})),
            "are in the checkpoint twice",
        ),
        "nothing": (tmp_path / "absent.pt", "there is no checkpoint"),
        "empty folder": (folder, "holds neither model.safetensors nor"),
        "folder that points outside": (index, "which is no file of this folder"),
    }


def test_bad_files_are_named_and_nothing_is_run(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, (path, message) in _damaged(tmp_path, state).items():
        with pytest.raises(ArtifactError, match=message):
            read_checkpoint(path, config=CONFIG)
        assert not Path("was-run").exists(), what
