from __future__ import annotations

import copy
from dataclasses import fields, replace

import pytest
import torch

from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.errors import TrainingError
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.distillation import Distillation, DistillationWeights, check_teacher
from sam3i_edge.train.losses import LossWeights
from sam3i_edge.train.objective import Objective
from sam3i_edge.train.stages import freeze

TERMS = [field.name for field in fields(DistillationWeights)]
CPU = torch.device("cpu")


@pytest.fixture
def batch(encode):
    shape = BatchShape(images=2, instructions=3, mask_instructions=2, image_size=64, mask_size=16)
    return SceneBatches(shape, encode, seed=0, stream=0, level_weights=dict.fromkeys(LEVELS, 1.0))[0]


@pytest.fixture
def student(tiny_model):
    model = SAM3I(tiny_model).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapter." in name:
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def teacher(student):
    return Distillation(copy.deepcopy(student), DistillationWeights())


def ask(student, batch, adapted=True):
    texts, maps = {}, []
    handle = student.text_encoder.register_forward_hook(lambda m, i, o: texts.__setitem__(i[1], o))
    other = student.image_encoder.register_forward_hook(lambda m, i, o: maps.extend(o))
    level = batch.level if adapted else None
    found = student(batch.pixel_values, batch.input_ids, level, batch.image_index, batch.mask_index)
    handle.remove()
    other.remove()
    return found, maps, texts


def terms(teacher, student, batch, adapted=True):
    prediction, maps, texts = ask(student, batch, adapted)
    return teacher.loss(prediction, maps, texts, batch, batch.input_ids, adapted=adapted)


def test_a_student_that_is_the_teacher_has_nothing_to_learn(teacher, student, batch):
    total, named = terms(teacher, student, batch)
    assert set(named) == {f"teacher_{name}" for name in TERMS}
    assert all(not value.requires_grad for value in named.values())
    for name in ("maps", "text", "fusion", "boxes"):
        assert float(named[f"teacher_{name}"]) < 1e-10  # without a graph the last bits may differ
    total.backward()
    largest = max(float(p.grad.abs().max()) for p in student.parameters() if p.grad is not None)
    assert largest < 1e-4  # cross-entropy against oneself is at its minimum


def test_each_term_feels_its_own_part(teacher, student, batch):
    def moved(name):
        other = copy.deepcopy(student)
        with torch.no_grad():
            other.get_parameter(name).add_(0.5)
        return {key.removeprefix("teacher_"): float(v) for key, v in terms(teacher, other, batch)[1].items()}

    same = {key.removeprefix("teacher_"): float(v) for key, v in terms(teacher, student, batch)[1].items()}
    assert moved("text_encoder.projection.bias")["text"] > 0.01
    boxes = moved("detector.decoder.box_head.layers.2.bias")
    assert boxes["boxes"] > 0.01
    assert boxes["text"] + boxes["fusion"] < 1e-10
    presence = moved("detector.decoder.presence_head.layers.2.bias")
    assert presence["scores"] > same["scores"]
    assert presence["boxes"] + presence["fusion"] < 1e-6
    assert presence["masks"] == pytest.approx(same["masks"], rel=1e-5)
    masks = moved("detector.mask_decoder.mask_embedders.concept.layers.2.bias")
    assert masks["masks"] > same["masks"]
    assert masks["scores"] == pytest.approx(same["scores"], rel=1e-5)
    assert moved("detector.fusion_encoder.layers.0.mlp.fc2.bias")["fusion"] > 1e-4
    assert moved("image_encoder.neck.0.bias")["maps"] > 0.01
    assert boxes["maps"] < 1e-10


def test_terms_by_hand(teacher, student, batch):
    """Boxes are weighed by belief, of which all queries together have 1."""
    prediction, maps, texts = ask(student, batch)
    maps = [value * scale for value, scale in zip(maps, (2, 3, 1), strict=True)]
    shifted = replace(prediction, boxes=prediction.boxes + 0.25, fused=prediction.fused * 3)
    texts = {level: value * 2 for level, value in texts.items()}
    _, named = teacher.loss(shifted, maps, texts, batch, batch.input_ids, adapted=True)
    assert float(named["teacher_maps"]) == pytest.approx((1 + 4 + 0) / 3, rel=1e-4)
    assert float(named["teacher_boxes"]) == pytest.approx(4 * 0.25, rel=1e-4)
    assert float(named["teacher_fusion"]) == pytest.approx(4.0, rel=1e-4)  # (3 - 1)^2
    assert float(named["teacher_text"]) == pytest.approx(1.0, rel=1e-4)
    with torch.no_grad():
        reference = teacher.teacher(
            batch.pixel_values, batch.input_ids, batch.level, batch.image_index, batch.mask_index
        )
    belief = (reference.logits[-1].sigmoid() * reference.presence[-1].sigmoid()[:, None])[batch.mask_index]
    p = reference.mask_logits.sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean((-1, -2))
    want = float((belief * entropy).sum() / belief.sum())
    assert float(named["teacher_masks"]) == pytest.approx(want, rel=1e-3)


def test_weights_weigh(teacher, student, batch):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    none = dict.fromkeys(TERMS, 0.0)
    _, named = terms(teacher, student, batch)
    for name in TERMS:
        teacher.weights = DistillationWeights(**{**none, name: 2.0})
        total, _ = terms(teacher, student, batch)
        assert float(total) == pytest.approx(2 * float(named[f"teacher_{name}"]), rel=1e-5)
    for name in TERMS:
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            DistillationWeights(**{name: -1.0})


@pytest.mark.parametrize("stage", ["detail", "3"])
def test_the_teacher_receives_no_gradient_and_never_changes(teacher, student, batch, tiny_run, stage):
    """Through the objective, along both routes."""
    stage = next(s for s in tiny_run.stages if s.name == stage)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    before = {name: value.clone() for name, value in teacher.teacher.state_dict().items()}
    objective = Objective(student, LossWeights(attributes=0.0), CPU)
    objective.learn_from(teacher, 0.0)
    learns = freeze(student, stage)
    learner = torch.optim.SGD(learns.values(), lr=0.1)
    for _ in range(2):
        total, named = objective.loss(batch, stage)
        learner.zero_grad()
        total.backward()
        learner.step()
    assert {f"teacher_{name}" for name in TERMS} <= set(named)
    assert any(float(p.grad.abs().max()) > 0 for p in learns.values() if p.grad is not None)
    assert all(p.grad is None and not p.requires_grad for p in teacher.teacher.parameters())
    assert not teacher.teacher.training
    after = teacher.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_ordinary_losses_are_weighed_beside(teacher, student, batch, tiny_run):
    stage = next(s for s in tiny_run.stages if s.name == "3")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    objective = Objective(student, LossWeights(attributes=0.0), CPU)
    plain = float(objective.loss(batch, stage)[0])
    taught = float(terms(teacher, student, batch)[0])
    objective.learn_from(teacher, 0.25)
    assert float(objective.loss(batch, stage)[0]) == pytest.approx(0.25 * plain + taught, rel=1e-4)


def test_learning_from_a_teacher_brings_the_student_near(teacher, student, batch):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    first = float(terms(teacher, student, batch)[1]["teacher_fusion"])
    learner = torch.optim.Adam(student.parameters(), lr=2e-3)
    for _ in range(15):
        total, named = terms(teacher, student, batch)
        learner.zero_grad()
        total.backward()
        learner.step()
    assert float(named["teacher_fusion"]) < 0.6 * first


def test_a_teacher_with_more_slots_reads_the_same_text(student, batch, tiny_model):
    """As an official model with 32 beside a student with 16, for one text encoder that ignores its length."""
    short = SAM3I(replace(tiny_model, text_context=16)).eval()
    state = student.state_dict()
    state["text_encoder.position_embedding"] = state["text_encoder.position_embedding"][:16]
    short.load_state_dict(state)
    asked = replace(batch, input_ids=batch.input_ids[:, :16].contiguous())
    teacher = Distillation(copy.deepcopy(student), DistillationWeights())
    seen = []
    teacher.teacher.text_encoder.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    _, named = terms(teacher, short, asked)
    assert {ids.shape[1] for ids in seen} == {32}
    rows = torch.cat(seen)
    assert not rows[:, 16:].any()
    assert sorted(map(tuple, rows[:, :16].tolist())) == sorted(map(tuple, asked.input_ids.tolist()))
    assert 0 <= float(named["teacher_text"]) < 1
    seen.clear()
    terms(teacher, short, asked, adapted=False)  # causal: padding changes nothing, and is left out
    assert {ids.shape[1] for ids in seen} == {16}


def test_teachers_that_cannot_be_compared_are_refused(tiny_model):
    check_teacher(tiny_model, tiny_model, LEVELS)
    for change, message in (
        ({"num_queries": 9}, "num_queries is 9, the student's 8"),
        ({"d_model": 32}, "d_model is 32, the student's 16"),
        ({"image_size": 128}, "grid is 8, the student's 4"),
        ({"text_context": 16}, "reads 16 tokens and the student 32"),
        ({"adapter_dim": 0}, "knows level concept alone"),
    ):
        with pytest.raises(TrainingError, match=message):
            check_teacher(replace(tiny_model, **change), tiny_model, LEVELS)
    check_teacher(replace(tiny_model, adapter_dim=0), tiny_model, ["concept"])
