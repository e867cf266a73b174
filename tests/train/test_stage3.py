"""Stage 3 with its alignment losses, run by the trainer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sam3i_edge.data.annotations import read_annotations, write_annotations, write_scenes
from sam3i_edge.errors import TrainingError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import save_weights
from sam3i_edge.train.alignment import SAM3I_ALIGNMENT
from sam3i_edge.train.run_folder import RunFolder
from sam3i_edge.train.trainer import run_training

TERMS = ("align_kl", "align_hard", "align_infonce", "align_margin")


@pytest.fixture(scope="module")
def config(tiny_run, tiny_model, tmp_path_factory):
    """Four steps of stage 3 on a random base, two samples a step."""
    start = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    save_weights(SAM3I(tiny_model), start)
    return replace(
        tiny_run,
        stages=(replace(tiny_run.stages[-1], pairs=1),),
        start=str(start),
        images=2,
        mask_instructions=2,
        alignment=SAM3I_ALIGNMENT,
    )


def metrics(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


class Killed(BaseException):
    """Leaves the trainer as a kill does."""


def test_a_run_that_died_goes_on_to_the_same_numbers(config, tmp_path, encode):
    def die(progress):
        if (progress.kind, progress.step) == ("step", 4):
            raise Killed

    run_training(config, tmp_path / "whole", encode, device="cpu")
    with pytest.raises(Killed):
        run_training(config, tmp_path / "parts", encode, device="cpu", progress=die)
    half = RunFolder(tmp_path / "parts").load()
    assert half.step == 3
    run_training(config, tmp_path / "parts", encode, device="cpu")

    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert set(TERMS) <= set(metrics(tmp_path / "whole")[0])
    for name in ("base", "simple", "complex"):
        files = [tmp_path / part / "weights" / f"{name}.safetensors" for part in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()
    ends = [RunFolder(tmp_path / part).load().projector for part in ("whole", "parts")]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name])
    # It learned, and no file of weights holds it.
    assert not torch.equal(ends[0]["layers.0.weight"], half.projector["layers.0.weight"])
    assert not [name for name in ends[0] if name in RunFolder(tmp_path / "whole").load().model]


def test_learning_lowers_the_alignment_losses_on_annotated_pictures(config, tmp_path, encode):
    write_scenes(tmp_path / "data", count=3, seed=2)
    kept = {}
    for record in read_annotations(tmp_path / "data" / "annotations.json"):
        if record.simple and record.complex and record.annotations:
            texts = {"simple": record.simple[:1], "complex": record.complex[:1]}
            kept.setdefault(record.file_name, replace(record, **texts))
    write_annotations(tmp_path / "data" / "annotations.json", list(kept.values()))
    stage = replace(config.stages[0], steps=30, lr=3e-3, warmup=2)
    longer = replace(config, stages=(stage,), data=str(tmp_path / "data"), log_every=10, validate_every=30)
    run_training(longer, tmp_path / "run", encode, device="cpu")
    rows = [row for row in metrics(tmp_path / "run") if "loss" in row]
    first, last = (
        sum(getattr(SAM3I_ALIGNMENT, term.removeprefix("align_")) * row[term] for term in TERMS)
        for row in (rows[0], rows[-1])
    )
    assert last < 0.5 * first
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_one_sample_a_step_is_refused_before_anything_is_written(config, tmp_path, encode):
    with pytest.raises(TrainingError, match="compare samples, and a step has 1"):
        run_training(replace(config, images=1), tmp_path, encode, device="cpu")
    assert not list(tmp_path.iterdir())


def test_checkpoints_from_before_the_projector_still_load(config, tmp_path, encode):
    run_training(config, tmp_path, encode, device="cpu", max_minutes=0)
    values = torch.load(tmp_path / "last.pt", weights_only=True)
    del values["projector"]
    torch.save(values, tmp_path / "last.pt")
    run_training(config, tmp_path, encode, device="cpu")
    assert RunFolder(tmp_path).load().stage == 1
