from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sam3i_edge
from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.errors import ExportError, TrainingError
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import save_weights
from sam3i_edge.quantize._torchao import FakeQuantize
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import untold
from sam3i_edge.train.losses import LossWeights
from sam3i_edge.train.objective import Objective
from sam3i_edge.train.presets import quantization_aware
from sam3i_edge.train.quantized_run import QuantizedRun
from sam3i_edge.train.run_config import QatConfig, TrainConfig
from sam3i_edge.train.run_data import RunData
from sam3i_edge.train.run_folder import RunFolder
from sam3i_edge.train.start import sizes_of
from sam3i_edge.train.trainer import run_training

DELAY = 2


def metrics(out: Path):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def quantized(out: Path) -> QuantSpec:
    """What was written, in memory."""
    spec = QuantSpec.load(out / "quant" / "int8.safetensors")
    return replace(spec, tensors={name: value.clone() for name, value in spec.tensors.items()})


class Killed(BaseException):
    """Leaves the trainer as a kill does: nothing that it would still have written is written."""


def at(place, action):
    """A progress callback that acts at one place."""

    def tell(progress):
        if (progress.kind, progress.stage, progress.step) == place:
            action()

    return tell


def die():
    raise Killed


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_model, tiny_run) -> TrainConfig:
    """A base stage and one of the adapters, from random weights whose adapters do something."""
    torch.manual_seed(3)
    model = SAM3I(tiny_model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapter_of(name):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp("start")
    save_weights(model, folder)
    stages = {stage.name: stage for stage in tiny_run.stages}
    return replace(
        tiny_run,
        model="",
        start=str(folder),
        losses=LossWeights(attributes=0.0),
        qat=QatConfig(recipe="int8", delay=DELAY, calibration_pairs=32),
        validate_every=1,
        stages=(
            replace(stages["base"], route="adapted", image_size=0, renew=False),
            replace(stages["3"], renew=False),
        ),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config, encode):
    """A run without interruption: its folder, and what was quantized after each stage."""
    out = tmp_path_factory.mktemp("whole")
    stages = {}

    def tell(progress):
        if progress.kind == "stage":
            stages[progress.stage] = quantized(out)

    run_training(config, out, encode, device="cpu", progress=tell)
    assert list(stages) == ["base", "3"]
    return out, stages


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, config, encode):
    """What a run starts from: its folder `quant`, the model, and the state of the random numbers after it."""
    folder = tmp_path_factory.mktemp("calibrated")
    torch.manual_seed(config.seed)
    run = QuantizedRun(config, sizes_of(config), encode, RunData(config), folder)
    return folder / "quant", run.start(untold), torch.get_rng_state()


@pytest.fixture
def starts_calibrated(calibrated, monkeypatch):
    """Runs start from `calibrated`: each would find the same, in seconds."""
    folder, model, state = calibrated

    def start(run, progress):
        shutil.copytree(folder, run.ptq_path.parent)
        torch.set_rng_state(state)
        return copy.deepcopy(model)

    monkeypatch.setattr(QuantizedRun, "start", start)


def test_a_run_writes_both_quantized_models_and_no_float_one(whole):
    out, stages = whole
    assert sorted(p.name for p in (out / "quant").iterdir()) == [
        "int8.json",
        "int8.safetensors",
        "ptq.json",
        "ptq.safetensors",
    ]
    assert not (out / "weights").exists()
    assert list(stages) == ["base", "3"]
    ptq = QuantSpec.load(out / "quant" / "ptq.safetensors")
    for spec in stages.values():
        assert spec.recipe == ptq.recipe == "int8"
        assert spec.layers == dict(ptq.layers)
        assert spec.notes["trained"] is True


def test_metrics_hold_the_start_the_curve_and_what_changed(whole, config):
    rows = metrics(whole[0])
    assert (rows[0]["stage"], rows[0]["step"]) == ("base", 0)  # of post-training quantization
    assert {"presence", "concept"} <= set(rows[0]["validation"])
    losses = [row for row in rows if "loss" in row]
    assert [(row["stage"], row["step"]) for row in losses] == [("base", 2), ("base", 4), ("3", 2), ("3", 4)]
    terms = {"teacher_text", "teacher_fusion", "teacher_scores", "teacher_boxes", "teacher_masks"}
    assert all(terms <= set(row) for row in losses)
    changed = {row["stage"]: row["changed_integers"] for row in rows if "changed_integers" in row}
    assert 0 < changed["base"] < changed["3"] < 1


def test_scales_stay_positive_and_where_they_were(whole):
    out, stages = whole
    ptq = QuantSpec.load(out / "quant" / "ptq.safetensors")
    for spec in stages.values():
        for name in ptq.layers:
            scale = spec.tensors[f"{name}.weight_scale"]
            assert torch.equal(scale, ptq.tensors[f"{name}.weight_scale"])
            assert bool((scale > 0).all())


def test_each_stage_changes_its_own_tensors_alone(whole):
    out, stages = whole
    ptq = QuantSpec.load(out / "quant" / "ptq.safetensors")
    for before, after, learns in ((ptq, stages["base"], None), (stages["base"], stages["3"], "adapters")):
        changed = {n for n, v in after.tensors.items() if not torch.equal(v, before.tensors[n])}
        assert changed
        assert {bool(adapter_of(name)) for name in changed} == {learns == "adapters"}


def test_concept_is_the_same_bits_before_and_after_the_adapters(whole, tiny_model, encode):
    _, stages = whole
    shape = BatchShape(images=1, instructions=2, mask_instructions=2, image_size=64, mask_size=16)
    batch = SceneBatches(shape, encode, seed=1, stream=0, level_weights={"concept": 1.0})[0]
    answers = {}
    for stage, spec in stages.items():
        model = spec.build(tiny_model)
        for level in (0, 1, 2):
            levels = torch.full_like(batch.level, level)
            answers[stage, level] = model(batch.pixel_values, batch.input_ids, levels, batch.image_index)
    for name in ("logits", "boxes", "presence", "mask_logits", "semantic_logits"):
        before, after = (getattr(answers[stage, 0], name) for stage in ("base", "3"))
        assert torch.equal(before, after), name
    for level in (1, 2):
        assert not torch.equal(answers["base", level].mask_logits, answers["3", level].mask_logits)


@pytest.mark.parametrize(
    "place",
    [
        ("validation", "base", 0),
        pytest.param(("step", "base", 4), marks=pytest.mark.slow),
        ("stage", "base", 4),
        ("step", "3", 2),
        pytest.param(("stage", "3", 4), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_that_died_goes_on_to_the_same_numbers(whole, tmp_path, config, encode, place, request):
    if place[0] != "validation":  # where there is no checkpoint yet, it calibrates again
        request.getfixturevalue("starts_calibrated")
    with pytest.raises(Killed):
        run_training(config, tmp_path, encode, device="cpu", progress=at(place, die))
    run_training(config, tmp_path, encode, device="cpu")
    assert metrics(tmp_path) == metrics(whole[0])
    for name in ("ptq.safetensors", "int8.safetensors", "int8.json"):
        assert (tmp_path / "quant" / name).read_bytes() == (whole[0] / "quant" / name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_calibrates(tmp_path, config, encode, number):
    asked, reports, told = [], [], []

    def signalled(text):
        asked.append(text)
        if len(asked) == 3:
            os.kill(os.getpid(), number)
        return encode(text)

    run_training(
        config, tmp_path, signalled, device="cpu", progress=reports.append,
        preparing=lambda *words: told.append(words),
    )  # fmt: skip
    assert len(asked) == 3  # of 32 pairs
    assert told[-1] == ("calibrating on 32 pairs", 2 / 32)
    assert [(report.kind, report.step) for report in reports] == [("paused", 0)]
    assert not (tmp_path / "quant").exists()


@pytest.mark.usefixtures("starts_calibrated")
def test_rounding_waits_for_its_step_but_validation_never_does(tmp_path, config, encode, monkeypatch):
    switched, training, validating = [], [], []

    def state(model):
        found = {bool(m.fake_quant_enabled[0]) for m in model.modules() if isinstance(m, FakeQuantize)}
        assert len(found) == 1  # all alike
        return found.pop()

    turn, loss, validate = QuantizedRun.round, Objective.loss, Objective.validate
    monkeypatch.setattr(QuantizedRun, "round", lambda s, m, on: switched.append(on) or turn(s, m, on))
    monkeypatch.setattr(Objective, "loss", lambda s, *a: training.append(state(s.model)) or loss(s, *a))
    monkeypatch.setattr(
        Objective, "validate", lambda s, *a: validating.append(state(s.model)) or validate(s, *a)
    )
    run_training(config, tmp_path, encode, device="cpu")
    assert training == [False] * DELAY + [True] * (8 - DELAY)
    assert validating == [True] * 9
    assert switched


@pytest.mark.usefixtures("starts_calibrated")
def test_a_loss_that_is_no_number_names_step_and_batch(tmp_path, config, encode):
    slow = replace(config, stages=(replace(config.stages[0], steps=8),))
    with pytest.raises(Killed):
        run_training(slow, tmp_path, encode, device="cpu", progress=at(("validation", "base", 5), die))
    folder = RunFolder(tmp_path)
    spoiled = folder.load()
    assert spoiled.step == 3
    spoiled.model["detector.decoder.query_embed.weight"][0, 0] = float("nan")
    folder.save(spoiled)
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(
        TrainingError,
        match=r"stage 'base', step 3 \(batch 3 of seed 0\): loss nan.*last checkpoint in .* is whole",
    ):
        run_training(slow, tmp_path, encode, device="cpu")
    assert (tmp_path / "last.pt").read_bytes() == kept


@pytest.mark.usefixtures("starts_calibrated")
def test_two_runs_in_one_folder_are_refused(tmp_path, config, encode):
    """The second in a process of its own: locks are a process's."""
    script = (
        "import sys; from pathlib import Path\n"
        "from sam3i_edge.train.run_config import TrainConfig\n"
        "from sam3i_edge.train.trainer import run_training\n"
        "out = Path(sys.argv[1])\n"
        "run_training(TrainConfig.read(out / 'config.json'), out, None, device='cpu')\n"
    )
    refused = []

    def second():
        command = [sys.executable, "-c", script, str(tmp_path)]
        root = Path(next(iter(sam3i_edge.__path__))).parent
        refused.append(subprocess.run(command, capture_output=True, text=True, cwd=root, check=False))
        raise Killed

    with pytest.raises(Killed):
        run_training(config, tmp_path, encode, device="cpu", progress=at(("step", "base", 2), second))
    assert refused[0].returncode == 1
    wanted = f"TrainingError: another process trains in {tmp_path}: wait for it, or choose another folder"
    assert refused[0].stderr.splitlines()[-1].endswith(wanted)


def test_the_other_recipes_train_too(tmp_path, config, encode, tiny_model):
    for recipe in ("int8w", "int4"):
        stage = replace(config.stages[0], steps=3)
        own = replace(config, stages=(stage,), qat=replace(config.qat, recipe=recipe, delay=0))
        run_training(own, tmp_path / recipe, encode, device="cpu")
        spec = QuantSpec.load(tmp_path / recipe / "quant" / f"{recipe}.safetensors")
        assert spec.recipe == recipe
        assert all(layer.input_scale is None for layer in spec.layers.values())
        assert any(layer.group for layer in spec.layers.values()) == (recipe == "int4")
        spec.build(tiny_model)


def test_annotated_pictures_calibrate_and_teach(tmp_path, config, encode):
    write_scenes(tmp_path / "data", count=12, seed=0)
    stage = replace(config.stages[1], steps=2)
    own = replace(config, stages=(stage,), data=str(tmp_path / "data"))
    run_training(own, tmp_path / "run", encode, device="cpu")
    notes = QuantSpec.load(tmp_path / "run" / "quant" / "int8.safetensors").notes
    assert notes["calibration"]["images"] >= 8
    write_scenes(tmp_path / "few", count=3, seed=0)
    with pytest.raises(ExportError, match="calibration got 3 images"):
        run_training(replace(own, data=str(tmp_path / "few")), tmp_path / "other", encode, device="cpu")


def test_the_plan_trains_the_base_first_and_then_adapters_alone():
    plan = quantization_aware("int4", "weights", "data")
    assert [(stage.name, stage.trainable) for stage in plan.stages] == [
        ("base", ("base",)),
        ("3", ("simple", "bridge", "complex")),
    ]
    assert not any(stage.renew for stage in plan.stages)
    assert (plan.qat.recipe, plan.start, plan.data) == ("int4", "weights", "data")
    with pytest.raises(ValueError, match="unknown recipe 'int3'; choose from int8, int8w, int4"):
        quantization_aware("int3", "weights")
