from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

import sam3i_edge
from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.errors import TrainingError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_weights
from sam3i_edge.train import run_data, trainer
from sam3i_edge.train.objective import Objective
from sam3i_edge.train.run_folder import RunFolder
from sam3i_edge.train.trainer import run_training

FILES = ("base", "simple", "complex")


def metrics(out: Path):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def weights(out: Path):
    return {name: (out / "weights" / f"{name}.safetensors").read_bytes() for name in FILES}


class Killed(BaseException):
    """Leaves the trainer as a kill does: nothing that it would still have written is written."""


class Watch:
    """A progress callback that acts once at one place, and keeps what it was told."""

    def __init__(self, place=None, action=None):
        self.place, self.action, self.told = place, action, []

    def __call__(self, progress):
        self.told.append((progress.kind, progress.stage, progress.step))
        if self.told[-1] == self.place:
            self.action()


def die():
    raise Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_run, encode):
    """A run without interruption: its folder, the weights after each stage, and what it told."""
    out = tmp_path_factory.mktemp("whole")
    stages, told = {}, []

    def tell(progress):
        told.append((progress.kind, progress.stage, progress.step))
        if progress.kind == "stage":
            stages[progress.stage] = weights(out)

    assert run_training(tiny_run, out, encode, device="cpu", progress=tell) == out
    return out, stages, told


def test_targets_in_training_may_be_finer_than_the_masks(tiny_run, tmp_path, encode, monkeypatch):
    sides: dict[str, set[int]] = {"loss": set(), "validate": set()}
    for name, batch_of in (("loss", lambda given: given), ("validate", lambda given: given[0])):
        was = getattr(Objective, name)

        def watched(self, given, *rest, was=was, name=name, batch_of=batch_of):
            sides[name].add(batch_of(given).object_masks.shape[-1])
            return was(self, given, *rest)

        monkeypatch.setattr(Objective, name, watched)
    run_training(replace(tiny_run, mask_scale=2, stages=tiny_run.stages[1:2]), tmp_path, encode, device="cpu")
    (side,) = sides["validate"]
    assert sides["loss"] == {2 * side}


def test_a_run_tells_and_writes_what_it_did(whole, tiny_run):
    out, stages, told = whole
    assert [t for t in told if t[0] == "stage"] == [("stage", s.name, 4) for s in tiny_run.stages]
    assert told[-1] == ("finished", "3", 4)
    assert sorted(p.name for p in out.iterdir()) == [
        ".lock",
        "config.json",
        "last.pt",
        "metrics.jsonl",
        "weights",
    ]
    rows = metrics(out)
    assert [(r["stage"], r["step"]) for r in rows if "loss" in r] == [
        (s.name, n) for s in tiny_run.stages for n in (2, 4)
    ]
    assert set(stages) == {"image", "base", "detail", "1", "2", "3"}
    figures = {r["stage"]: set(r["validation"]) for r in rows if "validation" in r}
    assert figures["image"] == {"category", "color", "size", "fill"}
    assert {"presence", "concept"} <= figures["base"]
    assert {r["stage"] for r in rows if "attributes" in r} == {"image", "base", "detail"}
    assert {r["stage"] for r in rows if "grounding" in r} == {"base", "detail", "1", "2", "3"}


def test_each_stage_changes_its_own_weights_alone(whole, tiny_run, tiny_model):
    _, stages, _ = whole
    changed = {
        stage: [name for name in FILES if stages[stage][name] != stages[before][name]]
        for before, stage in (("base", "detail"), ("detail", "1"), ("1", "2"), ("2", "3"))
    }
    # The mask embedders of the adapters follow the base's until they train.
    assert changed.pop("detail") == ["base", "simple", "complex"]
    assert changed == {"1": ["simple"], "2": ["complex"], "3": ["simple", "complex"]}
    image, base = (load(stages[stage]["base"]) for stage in ("image", "base"))
    torch.manual_seed(tiny_run.seed)
    start = SAM3I(tiny_model).state_dict()
    assert {name.split(".")[0] for name in image if not torch.equal(image[name], start[name])} == {
        "image_encoder"
    }
    assert not torch.equal(image["text_encoder.projection.bias"], base["text_encoder.projection.bias"])


def test_concept_answers_are_the_same_bits_before_and_after_the_adapters(whole, tmp_path, tiny_model, encode):
    out, stages, _ = whole
    for name in FILES:
        (tmp_path / f"{name}.safetensors").write_bytes(stages["detail"][name])
    shape = BatchShape(images=1, instructions=2, mask_instructions=2, image_size=64, mask_size=16)
    batch = SceneBatches(shape, encode, seed=1, stream=0, level_weights={"concept": 1.0})[0]
    answers = {}
    for when, folder in (("before", tmp_path), ("after", out / "weights")):
        model = SAM3I(tiny_model).eval()
        load_weights(model, folder)
        with torch.no_grad():
            for level in (0, 1, 2):
                levels = torch.full_like(batch.level, level)
                answers[when, level] = model(batch.pixel_values, batch.input_ids, levels, batch.image_index)
    for name in ("logits", "boxes", "presence", "mask_logits", "semantic_logits"):
        concept = [getattr(answers[when, 0], name) for when in ("before", "after")]
        assert torch.equal(*concept)
        # Untrained adapters answer as the base does; trained ones do not.
        for level in (1, 2):
            torch.testing.assert_close(getattr(answers["before", level], name), concept[0])
    assert not torch.equal(answers["after", 1].mask_logits, answers["before", 1].mask_logits)
    assert not torch.equal(answers["after", 2].mask_logits, answers["before", 2].mask_logits)


@pytest.mark.parametrize(
    "place", [("step", "base", 2), ("step", "detail", 2), ("stage", "1", 4), ("validation", "2", 4)], ids=str
)
def test_a_run_that_died_goes_on_to_the_same_numbers(whole, tmp_path, tiny_run, encode, place):
    with pytest.raises(Killed):
        run_training(tiny_run, tmp_path, encode, device="cpu", progress=Watch(place, die))
    run_training(tiny_run, tmp_path, encode, device="cpu")
    assert metrics(tmp_path) == metrics(whole[0])
    assert weights(tmp_path) == weights(whole[0])


def test_a_run_by_muon_that_died_goes_on_to_the_same_numbers(tmp_path, tiny_run, encode):
    run = replace(tiny_run, muon=True, stages=tiny_run.stages[1:2])
    run_training(run, tmp_path / "whole", encode, device="cpu")
    with pytest.raises(Killed):
        run_training(run, tmp_path / "died", encode, device="cpu", progress=Watch(("step", "base", 2), die))
    run_training(run, tmp_path / "died", encode, device="cpu")
    assert weights(tmp_path / "died") == weights(tmp_path / "whole")


def test_kill_9_and_a_worker_process(whole, tmp_path, tiny_run, encode):
    script = textwrap.dedent("""
        import importlib.util, os, signal, sys
        from dataclasses import replace
        from pathlib import Path
        import torch
        from sam3i_edge.model.config import PRESETS
        from sam3i_edge.train.trainer import run_training

        spec = importlib.util.spec_from_file_location("tiny", sys.argv[1])
        tiny = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tiny)
        PRESETS["tiny"] = tiny.TINY
        torch.use_deterministic_algorithms(True)

        def tell(progress):
            if (progress.kind, progress.stage, progress.step) == ("step", "1", 4):
                os.kill(os.getpid(), signal.SIGKILL)

        config = replace(tiny.tiny_config(), workers=1)
        run_training(config, Path(sys.argv[2]), tiny.words, device="cpu", progress=tell)
    """)
    root = Path(sam3i_edge.__file__).parents[1]
    killed = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).with_name("tiny.py")), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert RunFolder(tmp_path).load().step == 3
    run_training(replace(tiny_run, workers=1), tmp_path, encode, device="cpu")
    assert metrics(tmp_path) == metrics(whole[0])
    assert weights(tmp_path) == weights(whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_pauses_at_a_checkpoint(whole, tmp_path, tiny_run, encode, number):
    before = signal.getsignal(number)
    watch = Watch(("step", "1", 2), lambda: os.kill(os.getpid(), number))
    run_training(tiny_run, tmp_path, encode, device="cpu", progress=watch)
    assert watch.told[-1] == ("paused", "1", 2)
    assert signal.getsignal(number) is before
    checkpoint = RunFolder(tmp_path).load()
    assert (checkpoint.stage, checkpoint.step) == (3, 2)
    run_training(tiny_run, tmp_path, encode, device="cpu")
    assert metrics(tmp_path) == metrics(whole[0])
    assert weights(tmp_path) == weights(whole[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_ends_a_step_that_does_not_end(tmp_path, tiny_run, encode, monkeypatch, workers):
    """The last checkpoint is kept, and the run ends before it is killed."""

    class Endless(SceneBatches):
        def __getitem__(self, number):
            if self.stream == 1 and number == 3:
                time.sleep(600)
            return super().__getitem__(number)

    def saved(folder, checkpoint, save=RunFolder.save):
        save(folder, checkpoint)
        if (checkpoint.stage, checkpoint.step) == (1, 3):  # and the next batch is waited for
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(run_data, "SceneBatches", Endless)
    monkeypatch.setattr(RunFolder, "save", saved)
    monkeypatch.setattr(trainer, "PATIENCE", 0.2)
    config = replace(tiny_run, checkpoint_every=1, workers=workers)
    watch = Watch()
    run_training(config, tmp_path, encode, device="cpu", progress=watch)
    assert watch.told[-1] == ("paused", "base", 3)
    checkpoint = RunFolder(tmp_path).load()
    assert (checkpoint.stage, checkpoint.step) == (1, 3)


def test_no_time_left_pauses_and_resuming_a_finished_run_does_nothing(whole, tmp_path, tiny_run, encode):
    watch = Watch()
    run_training(tiny_run, tmp_path, encode, device="cpu", progress=watch, max_minutes=0)
    assert watch.told == [("paused", "image", 0)]
    watch = Watch()
    before = weights(whole[0])
    run_training(tiny_run, whole[0], encode, device="cpu", progress=watch)
    assert watch.told == [("finished", "3", 4)]
    assert weights(whole[0]) == before


def test_adapters_train_on_a_base_from_elsewhere(whole, tmp_path, tiny_run, encode):
    config = replace(tiny_run, stages=tiny_run.stages[3:], start=str(whole[0] / "weights"))
    run_training(config, tmp_path, encode, device="cpu")
    assert weights(tmp_path)["base"] == weights(whole[0])["base"]
    assert weights(tmp_path)["simple"] != weights(whole[0])["simple"]


def test_training_on_annotated_pictures(tmp_path, tiny_run, encode):
    write_scenes(tmp_path / "data", count=3, seed=0)
    config = replace(tiny_run, stages=tiny_run.stages[1:2], data=str(tmp_path / "data"))
    watch = Watch()
    run_training(config, tmp_path / "run", encode, device="cpu", progress=watch)
    assert watch.told[-1] == ("finished", "base", 4)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path, tiny_run, encode):
    stage = replace(tiny_run.stages[1], steps=8)
    config = replace(tiny_run, stages=(stage,), checkpoint_every=2)
    run_training(config, tmp_path, encode, device="cpu", progress=Watch(), max_minutes=0)
    folder = RunFolder(tmp_path)
    spoiled = folder.load()
    spoiled.model["detector.decoder.query_embed.weight"][0, 0] = float("nan")
    folder.save(spoiled)
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(
        TrainingError,
        match=r"stage 'base', step 0 \(batch 0 of seed 0\): .*loss nan.*last checkpoint in .* is whole",
    ):
        run_training(config, tmp_path, encode, device="cpu")
    assert (tmp_path / "last.pt").read_bytes() == kept


def test_a_run_that_failed_frees_its_folder(tmp_path, tiny_run, encode):
    with pytest.raises(Killed) as kept:  # with its frames, as a notebook keeps them
        run_training(tiny_run, tmp_path, encode, device="cpu", progress=Watch(("step", "image", 2), die))
    watch = Watch()
    run_training(tiny_run, tmp_path, encode, device="cpu", progress=watch, max_minutes=0)
    assert watch.told[-1][0] == "paused"
    assert kept.traceback


def test_learning_lowers_the_loss(tmp_path, tiny_run, encode):
    stage = replace(tiny_run.stages[1], steps=40, lr=3e-3, warmup=5, level_weights={"concept": 1.0})
    config = replace(tiny_run, stages=(stage,), instructions=4, log_every=10, validate_every=40)
    run_training(config, tmp_path, encode, device="cpu")
    losses = [row["loss"] for row in metrics(tmp_path) if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]


def test_bad_arguments_are_named(tmp_path, tiny_run, encode):
    with pytest.raises(TrainingError, match="unknown model 'huge'; choose from sam3i"):
        run_training(replace(tiny_run, model="huge"), tmp_path, encode)
    for device, message in (
        ("tpu0", "unknown device 'tpu0'"),
        ("meta", "training runs on cpu and cuda"),
        ("cuda:99", "device 'cuda:99' is not there"),
    ):
        with pytest.raises(TrainingError, match=message):
            run_training(tiny_run, tmp_path, encode, device=device)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_in_bfloat16(tmp_path, tiny_run, encode):
    run_training(tiny_run, tmp_path, encode, device="cuda")
    assert all(row["loss"] > 0 for row in metrics(tmp_path) if "loss" in row)
