from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam3i_edge import agreement as parity
from sam3i_edge.agreement import LIMITS, Limits, quality
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.sensitivity import Questions, Trials

DAMAGED = "detector.mask_decoder.instance_proj"


@pytest.fixture
def damaged(spec):
    """A quantized model with one layer whose integers are those of another sign."""
    good = spec("int8w")
    tensors = dict(good.tensors)
    tensors[f"{DAMAGED}.weight"] = -tensors[f"{DAMAGED}.weight"]
    return replace(good, tensors=tensors)


@pytest.fixture
def trials(prepared, damaged, pairs, encode, preprocessing):
    return Trials(prepared("int8w").model, damaged, Questions(pairs[:6], encode, preprocessing))


@pytest.fixture(autouse=True)
def _lenient(monkeypatch):
    """Limits that a random model of 16 channels keeps with good integers."""
    loose = Limits(same_count=0.8, mean_iou=0.8, min_iou=0.0, score=None, box_px=None)
    monkeypatch.setitem(LIMITS, "int8w", loose)
    assert parity.LIMITS["int8w"] is loose


def test_the_damaged_layer_costs_most_and_alone_stays_float(trials):
    calls = []
    losses = trials.losses(lambda words, share: calls.append((words, share)))
    assert {words for words, _ in calls} == {f"measuring {len(losses)} layers on 6 pairs"}
    shares = [share for _, share in calls]
    assert shares == sorted(shares)
    assert len(set(shares)) > 6 * len(losses)  # pair by pair, from 0 to 1
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert losses.keys() == trials.integers.keys()
    first, second = list(losses)[:2]
    assert first == DAMAGED
    assert losses[first] > 0.5 > 3 * losses[second]
    assert list(losses.values()) == sorted(losses.values(), reverse=True)
    assert not trials.passes((), "int8w")
    assert trials.fewest_float(list(losses), "int8w") == [DAMAGED]
    # Wherever it stands in the order.
    order = list(losses)
    assert trials.fewest_float([*order[1:20], DAMAGED, *order[20:]], "int8w") == [DAMAGED]


def test_nothing_stays_float_when_all_passes(prepared, spec, pairs, encode, preprocessing):
    good = Trials(prepared("int8w").model, spec("int8w"), Questions(pairs[:12], encode, preprocessing))
    assert good.fewest_float([DAMAGED], "int8w") == []


def test_trials_leave_the_model_float(trials, pairs):
    before = {name: value.clone() for name, value in trials.model.state_dict().items()}
    names = [DAMAGED, "image_encoder.stem.0", "text_encoder.layers.0.mlp.fc1", "geometry_encoder.final_proj"]
    again = trials.run(())
    assert quality(trials.reference, again) == 1.0
    for name in names:
        trials.run([name])
    trials.run(names)
    assert not [m for m in trials.model.modules() if isinstance(m, QuantizedLayer)]
    after = trials.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_layers_before_the_detector_are_felt(trials, monkeypatch):
    """Features of the encoders are reused only where no layer of theirs is quantized."""
    counted = []
    for name in ("encode_images", "encode_texts"):
        real = getattr(Questions, name)
        monkeypatch.setattr(
            Questions,
            name,
            lambda self, *given, real=real, name=name: counted.append(name) or real(self, *given),
        )
    trials.run([DAMAGED])
    assert counted == []
    trials.run(["image_encoder.stem.0", DAMAGED])
    assert counted == ["encode_images"]
    trials.run(["text_encoder.layers.0.mlp.fc1"])
    assert counted == ["encode_images", "encode_texts"]
    trials.run(["geometry_encoder.final_proj"])
    assert counted[2:] == ["encode_images"]


def test_images_are_encoded_once_each(model, pairs, encode, preprocessing):
    questions = Questions(pairs[:10], encode, preprocessing)
    maps = questions.encode_images(model)
    assert len(maps) == 10
    assert len({id(m) for m in maps}) == len({id(p.image) for p in pairs[:10]})
