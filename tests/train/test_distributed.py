from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sam3i_edge
from sam3i_edge.errors import TrainingError
from sam3i_edge.train.distributed import Ranks, joined

SCRIPT = Path(__file__).with_name("two_ranks.py")


def torchrun(out: Path, what: str) -> None:
    root = Path(sam3i_edge.__file__).parents[1]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
            *(str(SCRIPT), str(out), what),
        ],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
    )


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "weights").glob("*.safetensors"))}


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_gradients_are_averaged_and_rows_gathered_give_the_loss_of_one_process(tmp_path):
    torchrun(tmp_path, "exchange")


@pytest.mark.slow
def test_two_ranks_stop_together_and_go_on_to_the_same_numbers(tmp_path):
    torchrun(tmp_path, "train")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.any(True, torch.device("cpu"))
        assert not ranks.any(False, torch.device("cpu"))
        rows = torch.ones(2, 3, requires_grad=True)
        assert ranks.gather(rows) is rows


def test_ranks_that_cannot_meet_are_an_error(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(TrainingError, match="WORLD_SIZE is set, but the ranks cannot meet"),
        joined(torch.device("cpu")),
    ):
        pass
