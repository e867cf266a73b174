from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sam3i_edge.errors import TrainingError
from sam3i_edge.train.losses import SAM3_LOSSES
from sam3i_edge.train.presets import NANO, PRESETS, fine_tuning, preset, quantization_aware
from sam3i_edge.train.run_config import QatConfig, TrainConfig


def plain(config: TrainConfig):
    return json.loads(json.dumps(config.to_json()))


@pytest.mark.parametrize(
    "config",
    [*PRESETS.values(), replace(NANO, stages=NANO.stages[1:], losses=SAM3_LOSSES, start="x", seed=7)],
)
def test_round_trip_through_json(config):
    assert TrainConfig.from_json(plain(config)) == config
    assert config.difference(TrainConfig.from_json(plain(config))) is None


def test_missing_fields_take_their_defaults():
    values = {"stages": [plain(NANO)["stages"][0]]}
    assert TrainConfig.from_json(values) == TrainConfig(stages=NANO.stages[:1])


def change(path, value):
    values = plain(NANO)
    *keys, last = path
    at = values
    for key in keys:
        at = at[key]
    at[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["imges"], 3, "the config: imges: no such field"),
        (["images"], "8", "images: must be a valid integer, got '8'"),
        (["images"], 8.5, "images: must be a valid integer, got 8.5"),
        (["images"], True, "images: must be a valid integer, got True"),
        (["images"], 0, "images must be above 0, got 0"),
        (["mask_instructions"], 7, "mask_instructions must be at most instructions"),
        (["ema_decay"], 1, "ema_decay must be below 1"),
        (["losses", "class_form"], "x", "losses.class_form: must be 'focal' or 'iabce', got 'x'"),
        (["losses", "match", "focal"], 1, "losses.match.focal: must be a valid boolean, got 1"),
        (["losses", "box"], 1, "losses.box: no such field"),
        (["losses"], [], "losses: must be an object, got a list of 0"),
        (["stages"], {}, "stages: must be a valid array, got an object"),
        (["stages"], [], r"stages must be some of .* got \[\]"),
        (
            ["stages", 2, "name"],
            "4",
            r"stages\[2\].name: must be 'image', 'distill', 'base', 'detail', '1', '2' or '3', got '4'",
        ),
        (["stages", 2, "name"], "base", "in that order and once each"),
        (
            ["stages", 0, "trainable"],
            ["base"],
            r"stages\[0\]: stages 'image' and 'distill' train \[\"image\"\] and no other",
        ),
        (["stages", 2, "trainable"], ["simple", "image"], r"stages\[2\]: stages 'image' and 'distill' train"),
        (["losses", "attributes"], 0, "stage 'image' needs losses.attributes above 0"),
        (["data"], [], r"data is an empty list: name a source, or"),
        (["data"], [{"weight": 0}], r"data\.sources\[0\]: weight must be above 0, got 0"),
        (["data"], [{"validation": "b"}], r"validation is for folders; drawn scenes are always new"),
        (["stages", 2, "steps"], -1, r"stages\[2\]: steps must be above 0, got -1"),
        (["stages", 2, "trainable"], ["mask"], r"stages\[2\].trainable\[0\]: must be"),
        (["stages", 2, "trainable"], [], r"stages\[2\]: trainable must name"),
        (
            ["stages", 2, "level_weights"],
            {"simpl": 1},
            r"stages\[2\].level_weights.simpl.\[key\]: must be 'concept'",
        ),
        (
            ["stages", 2, "level_weights"],
            {"simple": "1"},
            r"stages\[2\].level_weights.simple: must be a valid number, got '1'",
        ),
        (["stages", 2, "level_weights"], {}, r"stages\[2\]: level_weights must weigh"),
        (["stages", 3, "route"], "unadapted", r"stages\[3\]: route 'unadapted' trains the base alone"),
        (["stages", 2, "steps"], 10**20, r"stages\[2\]: steps must be at most 1,000,000,000, got 10{20}"),
        (["stages", 2, "image_size"], 10**6, r"stages\[2\]: image_size must be at most 8,192, got 1000000"),
        (["stages", 2, "lr"], float("inf"), r"stages\[2\].lr: must be a finite number, got inf"),
        (["clip"], 10**400, "clip: must be a finite number, got a number of more than 60 digits"),
        (["stages", 2, "warmup"], 10**400, r"warmup must be at most 1,000,000,000, got 10{50}"),
        (["threads"], 99_999_999, "threads must be at most 1,024"),
        (["workers"], 10**6, "workers must be at most 1,024"),
        (["stages", 0, "none_share"], 1.0, r"stages\[0\]: none_share must be below 1"),
    ],
)
def test_errors_name_the_field(path, value, message):
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_json(change(path, value))


STAGE_3 = replace(NANO.stages[-1], renew=False)
QAT = replace(
    NANO, stages=(STAGE_3,), start="weights", losses=replace(NANO.losses, attributes=0.0),
    qat=QatConfig(recipe="int8"),
)  # fmt: skip


@pytest.mark.parametrize(
    "config", [QAT, quantization_aware("int4", "x"), fine_tuning(["1", "base"], "x", "y")]
)
def test_further_training_goes_through_json_too(config):
    assert TrainConfig.from_json(plain(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "int3"}, "qat.recipe: must be '', 'int8', 'int8w' or 'int4', got 'int3'"),
        ({"delay": -1}, "qat: delay must be at least 0, got -1"),
        ({"calibration_pairs": 0}, "qat: calibration_pairs must be above 0, got 0"),
        ({"supervision": -0.5}, "qat: supervision must be at least 0, got -0.5"),
        ({"teacher": {"masks": -1}}, "qat.teacher: masks must be at least 0, got -1"),
        ({"teacher": {"mask": 1}}, "qat.teacher.mask: no such field"),
    ],
)
def test_errors_of_quantization_name_the_field(change, message):
    values = plain(QAT)
    values["qat"] |= change
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_json(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "", "stages": NANO.stages[:2]}, "goes on from trained weights: set start"),
        (
            {"stages": (replace(STAGE_3, renew=True),)},
            "stage '3': quantization-aware training keeps the model's",
        ),
        ({"stages": (replace(STAGE_3, image_size=160),)}, "set image_size 0 and renew false"),
        ({"stages": NANO.stages[:1], "losses": NANO.losses}, "has no stage 'image'"),
        (
            {"model": "", "start": "", "qat": QatConfig(), "stages": NANO.stages[1:2]},
            "model is empty: name a preset",
        ),
    ],
)
def test_quantization_needs_a_trained_model_as_it_is(change, message):
    with pytest.raises(ValueError, match=message):
        replace(QAT, **change)


def test_fine_tuning_trains_adapters_alone_unless_the_base_is_asked_for():
    plan = fine_tuning(["3", "1"], "weights", "data")
    assert [(stage.name, stage.trainable) for stage in plan.stages] == [
        ("1", ("simple",)),
        ("3", ("simple", "bridge", "complex")),
    ]
    assert all(stage.route == "adapted" and not stage.renew for stage in plan.stages)
    assert not plan.qat.recipe
    assert fine_tuning(["base"], "weights").stages[0].trainable == ("base",)
    with pytest.raises(ValueError, match="unknown stage 'detail'; choose from base, 1, 2, 3"):
        fine_tuning(["detail"], "weights")


def test_a_missing_field_is_named():
    values = plain(NANO)
    del values["stages"][2]["steps"]
    with pytest.raises(TrainingError, match=r"stages\[2\].steps: Field required"):
        TrainConfig.from_json(values)


def test_adapters_need_a_base():
    values = plain(NANO)
    del values["stages"][:3]
    with pytest.raises(TrainingError, match="stage '1' needs trained weights"):
        TrainConfig.from_json(values)
    assert TrainConfig.from_json({**values, "start": "weights"}).start == "weights"


def test_difference_names_the_first_field_that_differs():
    stages = (*NANO.stages[:2], replace(NANO.stages[2], lr=1e-3), *NANO.stages[3:])
    assert NANO.difference(replace(NANO, stages=stages)) == "stages[2].lr: 0.0003 against 0.001"
    assert NANO.difference(replace(NANO, seed=1)) == "seed: 0 against 1"


def test_reading_files(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(TrainingError, match=r"cannot read .*run\.json: No such file"):
        TrainConfig.read(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"run.json: Invalid JSON: EOF"):
        TrainConfig.read(path)
    path.write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"run.json: Invalid JSON: recursion limit"):
        TrainConfig.read(path)
    path.write_text(json.dumps(NANO.to_json()), encoding="utf-8-sig")  # as Windows tools save it
    assert TrainConfig.read(path) == NANO


def test_no_number_is_refused_in_code_too():
    with pytest.raises(ValueError, match="lr must be above 0, got nan"):
        replace(NANO.stages[0], lr=float("nan"))


def test_presets_by_name():
    assert preset("sam3i-nano") is NANO
    with pytest.raises(TrainingError, match="no training preset 'nano'; choose from sam3i-nano"):
        preset("nano")


def test_the_curriculum_keeps_the_base_frozen_after_its_stage():
    assert [stage.name for stage in NANO.stages] == ["image", "base", "detail", "1", "2", "3"]
    assert NANO.stages[1].trainable == ("base",)
    assert all("base" not in stage.trainable for stage in NANO.stages[3:])
