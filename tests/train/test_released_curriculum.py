from __future__ import annotations

import json

import pytest

from sam3i_edge.errors import TrainingError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.alignment import SAM3I_ALIGNMENT, AlignmentWeights
from sam3i_edge.train.released_curriculum import SAM3I_STAGES, sam3i_run, sam3i_stages
from sam3i_edge.train.run_config import TrainConfig
from sam3i_edge.train.stages import freeze, optimizer


def test_rates_and_steps_are_those_of_the_release():
    stages = sam3i_stages(records=1_001, batch=8)
    assert [stage.name for stage in stages] == ["1", "2", "3"]
    assert [stage.steps for stage in stages] == [8 * 126, 8 * 126, 4 * 126]
    assert [stage.lr for stage in stages] == pytest.approx([1.024e-2, 1.024e-2, 2.56e-3])
    assert [stage.lr * stage.text_lr for stage in stages] == pytest.approx([6.4e-4, 6.4e-4, 1.6e-4])
    assert [stage.pairs for stage in stages] == [0, 0, 1]
    assert SAM3I_STAGES[2].steps == 4 * 5_514
    with pytest.raises(ValueError, match="records and batch must be at least 1, got 0 and 8"):
        sam3i_stages(0)


def test_the_run_is_a_config_like_any_other():
    run = sam3i_run("base", "data", 8_000)
    assert run.alignment == SAM3I_ALIGNMENT == AlignmentWeights(kl=1e-3, hard=1, infonce=1, margin=1)
    assert run.stages == sam3i_stages(8_000)
    assert (run.weight_decay, run.clip) == (0.1, 0.1)
    assert TrainConfig.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_the_text_encoder_learns_at_its_own_rate(tiny_model):
    model = SAM3I(tiny_model)
    learns = freeze(model, SAM3I_STAGES[0])
    groups = optimizer(learns, 0.1, text_lr=0.0625).param_groups
    assert [(g["lr_scale"], g["weight_decay"]) for g in groups] == [
        (1.0, 0.1),
        (1.0, 0.0),
        (0.0625, 0.1),
        (0.0625, 0.0),
    ]
    names = {id(p): name for name, p in learns.items()}
    for group in groups:
        text = {names[id(p)].startswith("text_encoder.") for p in group["params"]}
        assert text == {group["lr_scale"] != 1}
    assert sum(len(g["params"]) for g in groups) == len(learns)
    assert [g["lr_scale"] for g in optimizer(learns, 0.1).param_groups] == [1.0, 1.0]


def run(**changes):
    return sam3i_run("base", "", 80).to_json() | changes


def stages(**changes):
    return [*(run()["stages"][:2]), run()["stages"][2] | changes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": stages(pairs=0)}, "alignment has weights above 0, but no stage has pairs"),
        ({"mask_instructions": 1}, r"stage '3': every pair is two of an image's mask_instructions \(1\)"),
        ({"stages": stages(pairs=-1)}, r"stages\[2\]: pairs must be at least 0"),
        ({"stages": stages(text_lr=0)}, r"stages\[2\]: text_lr must be above 0"),
        (
            {"stages": stages(route="unadapted", trainable=["base"])},
            r"stages\[2\]: pairs align the paths of simple and complex",
        ),
        ({"alignment": {"kl": -1}}, "alignment: kl must be at least 0"),
        ({"alignment": {"difficulty": "x"}}, "alignment.difficulty: must be 'released'"),
    ],
)
def test_errors_name_the_field(changes, message):
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_json(run(**changes))
