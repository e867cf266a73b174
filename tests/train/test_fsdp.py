"""A model split over two processes (FSDP2) against the same two processes with a whole model each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sam3i_edge
from sam3i_edge.errors import TrainingError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.run_config import QatConfig, TrainConfig
from sam3i_edge.train.run_folder import RunFolder
from sam3i_edge.train.trainer import run_training

SCRIPT = Path(__file__).with_name("two_shards.py")
FILES = ("base", "simple", "complex")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder of the runs `plain`, `split`, `joined` and `parted` of two_shards.py."""
    out = tmp_path_factory.mktemp("runs")
    root = Path(sam3i_edge.__file__).parents[1]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
            *(str(SCRIPT), str(out)),
        ],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=480,
    )
    return out


def metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def flat(tree: object, name: str = "") -> dict[str, object]:
    """Nested dicts and lists as one dict."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        return {name: tree}
    return {key: leaf for part, item in items for key, leaf in flat(item, f"{name}.{part}").items()}


def shifts_all_logits(name: str) -> bool:
    """Of a softmax, which ignores it: its gradient is rounding alone, and Adam takes steps of it."""
    return name.endswith("bias") and ("k_proj" in name or "box_bias" in name)


def assert_close(found: dict[str, object], wanted: dict[str, object]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        own = found[name]
        if isinstance(value, torch.Tensor):
            assert type(own) is torch.Tensor, name
            limit = 1e-4 if shifts_all_logits(name) else 1e-5
            assert own.shape == value.shape, name
            assert torch.allclose(own.double(), value.double(), rtol=1e-5, atol=limit), name
        elif "seconds" not in name:
            assert own == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), name


@pytest.mark.slow
def test_each_rank_holds_half_of_what_learns(runs):
    shares = [json.loads((runs / f"shares{rank}.json").read_text()) for rank in (0, 1)]
    assert len(shares[0]) == 5 + 2  # the steps of `split`, and the rest of `parted`
    for own, other in zip(*shares, strict=True):
        assert own + other == pytest.approx(1)
        assert 0.45 < other <= own < 0.55


@pytest.mark.slow
@pytest.mark.parametrize("run", ["split", "joined", "parted"])
def test_losses_figures_and_weights_are_those_of_whole_models(runs, run):
    rows, wanted = metrics(runs / run), metrics(runs / "plain")
    assert len([row for row in wanted if "loss" in row]) == 5
    assert_close(flat(rows), flat(wanted))
    for name in FILES:
        kept = [load_file(runs / folder / "weights" / f"{name}.safetensors") for folder in (run, "plain")]
        assert_close(*kept)


@pytest.mark.slow
def test_a_checkpoint_of_a_split_model_is_whole(runs):
    split, plain = (RunFolder(runs / name).load() for name in ("split", "plain"))
    for kind in ("model", "heads", "projector"):
        assert_close(flat(getattr(split, kind)), flat(getattr(plain, kind)))


def test_one_process_cannot_split_a_model(tmp_path, tiny_run, encode, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(TrainingError, match=r"only one.*torchrun --nproc-per-node N, or set shard to false"):
        run_training(replace(tiny_run, shard=True), tmp_path / "run", encode, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_quantized_model_is_not_split(tiny_run):
    stages = tuple(replace(s, renew=False) for s in tiny_run.stages[3:])
    config = replace(tiny_run, stages=stages, start="weights", qat=QatConfig(recipe="int8"))
    with pytest.raises(TrainingError, match="need the whole model on every rank: set shard to false"):
        TrainConfig.from_json({**config.to_json(), "shard": True})


@pytest.mark.parametrize("levels", [(0, 2, 2), (1, 1, 1), (2, 1, 0)])
def test_levels_without_instructions_change_no_text_feature(tiny_model, encode, levels):
    model = SAM3I(tiny_model).eval()
    calls = []
    model.text_encoder.register_forward_hook(lambda _, inputs, __: calls.append(inputs[1]))
    ids = torch.stack(
        [torch.from_numpy(encode(text)) for text in ("a star", "the red ring", "a small circle")]
    )
    with torch.no_grad():
        wanted = model.encode_text(ids, torch.tensor(levels))
        assert len(calls) == len(set(levels))
        calls.clear()
        model.every_level = True
        torch.testing.assert_close(model.encode_text(ids, torch.tensor(levels)), wanted)
    assert calls == ["concept", "simple", "complex"]
