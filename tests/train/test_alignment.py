from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

from official_files import FOLDER
from sam3i_edge.errors import TrainingError
from sam3i_edge.train.alignment import (
    SAM3I_ALIGNMENT,
    AlignmentWeights,
    alignment_loss,
    concept_margin,
    difficulty,
    difficulty_bce,
    instance_infonce,
    map_kl,
    symmetric_kl,
    weighted_bce,
)

# What the released code computes on these inputs, values and gradients.
FILE = FOLDER / "losses.npz"


@cache
def arrays():
    with np.load(FILE) as file:
        return dict(file)


def case(batch, count=None):
    """The inputs, floating ones as leaves; the first `count` samples alone."""
    names = ("logits_A", "logits_B", "feat_A", "feat_B", "feat_concept", "concept_text_id")
    given = {name: torch.from_numpy(arrays()[f"{batch}.{name}"])[:count] for name in names}
    given = {
        name: value.requires_grad_() if value.is_floating_point() else value for name, value in given.items()
    }
    masks = torch.from_numpy(arrays()[f"{batch}.gt_instance_masks"])
    counts = arrays()[f"{batch}.gt_num_instances"].tolist()
    given["target"] = torch.stack([part.any(0).float() for part in masks.split(counts)])[:count]
    return given


def maps(given):
    return given["logits_A"][:, 0], given["logits_B"][:, 0]


def features(given):
    return given["feat_A"], given["feat_B"]


VALUES = {
    "kl_A_given_B": lambda g: map_kl(*maps(g)),
    "kl_B_given_A": lambda g: map_kl(*maps(g)[::-1]),
    "kl_symmetric": lambda g: symmetric_kl(*maps(g)),
    "hard_A": lambda g: weighted_bce(*maps(g), g["target"]),
    "hard_B": lambda g: weighted_bce(*maps(g)[::-1], g["target"]),
    "hard_mean": lambda g: difficulty_bce(*maps(g), g["target"]),
    "infonce": lambda g: instance_infonce(*features(g), g["concept_text_id"]),
    "infonce_distinct_texts": lambda g: instance_infonce(*features(g), torch.arange(len(g["feat_A"]))),
    "margin": lambda g: concept_margin(*features(g), g["feat_concept"], g["concept_text_id"]),
}


@pytest.mark.parametrize("batch", ["a", "b"])
@pytest.mark.parametrize("name", VALUES)
def test_values_and_gradients_are_those_of_the_released_code(batch, name):
    given = case(batch)
    value = VALUES[name](given)
    value.backward()
    assert value.item() == pytest.approx(float(arrays()[f"{batch}.{name}"]), rel=1e-5)
    prefix = f"{batch}.{name}.grad."
    expected = {key.removeprefix(prefix): found for key, found in arrays().items() if key.startswith(prefix)}
    assert expected
    for key, wanted in expected.items():
        found = given[key].grad
        found = np.zeros_like(wanted) if found is None else found.numpy()
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted), key


@pytest.mark.parametrize("batch", ["a", "b"])
@pytest.mark.parametrize("name", ["infonce", "margin"])
def test_one_sample_alone_is_worth_nothing(batch, name):
    given = case(batch, 1)
    value = VALUES[name](given)
    assert value.item() == pytest.approx(float(arrays()[f"{batch}.{name}_batch1"]), abs=1e-6)
    value.backward()
    for key in ("feat_A", "feat_B"):
        wanted = arrays().get(f"{batch}.{name}_batch1.grad.{key}", np.zeros_like(given[key].detach().numpy()))
        np.testing.assert_allclose(given[key].grad.numpy(), wanted, atol=1e-5)


def test_a_step_with_one_sample_is_refused():
    given = case("a", 1)
    stacked = torch.stack(maps(given), 1)
    texts = torch.stack([*features(given), given["feat_concept"]], 1)
    arguments = (stacked, given["target"], texts, given["concept_text_id"])
    with pytest.raises(TrainingError, match=r"compare samples, and a step has 1: raise images"):
        alignment_loss(*arguments, SAM3I_ALIGNMENT)
    total, terms = alignment_loss(*arguments, AlignmentWeights(kl=1.0, hard=1.0))
    assert total.item() == pytest.approx(float(terms["align_kl"] + terms["align_hard"]))


def test_the_sum_weighs_the_terms():
    given = case("b")
    texts = torch.stack([*features(given), given["feat_concept"]], 1)
    total, terms = alignment_loss(
        torch.stack(maps(given), 1), given["target"], texts, given["concept_text_id"], SAM3I_ALIGNMENT
    )
    wanted = {"kl": "kl_symmetric", "hard": "hard_mean", "infonce": "infonce", "margin": "margin"}
    for name, official in wanted.items():
        assert float(terms[f"align_{name}"]) == pytest.approx(float(arrays()[f"b.{official}"]), rel=1e-5)
    summed = sum(getattr(SAM3I_ALIGNMENT, name) * terms[f"align_{name}"] for name in wanted)
    assert total.item() == pytest.approx(float(summed), rel=1e-6)


def test_the_true_divergence_by_hand():
    p, q = 0.9, 0.2
    a, b = (torch.tensor([math.log(x / (1 - x))]) for x in (p, q))
    m = (p + q) / 2

    def kl(x):
        return x * math.log(x / m) + (1 - x) * math.log((1 - x) / (1 - m))

    assert float(difficulty(a, b, "jensen_shannon")) == pytest.approx((kl(p) + kl(q)) / 2, rel=1e-5)
    assert float(difficulty(a, b, "released")) == pytest.approx(m * math.log(m / math.sqrt(p * q)), rel=1e-5)
    extreme = torch.tensor([50.0])
    assert float(difficulty(extreme, -extreme, "jensen_shannon")) == pytest.approx(math.log(2), rel=1e-4)
    # Symmetric in foreground and background; the released form is not.
    near, far = difficulty(a, b, "jensen_shannon"), difficulty(-a, -b, "jensen_shannon")
    torch.testing.assert_close(near, far)
    assert float(difficulty(-a, -b, "released")) > 1.4 * float(difficulty(a, b, "released"))


@pytest.mark.parametrize("form", ["released", "jensen_shannon"])
def test_maps_that_agree_cost_nothing(form):
    logits = torch.linspace(-40, 40, 64).view(1, 8, 8).requires_grad_()
    loss = difficulty_bce(logits, logits.detach(), torch.ones(1, 8, 8), form)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=2e-6)
    assert torch.isfinite(logits.grad).all()


def test_a_margin_without_any_other_concept_is_zero_and_differentiable():
    a = torch.randn(3, 4, requires_grad=True)
    loss = concept_margin(a, torch.randn(3, 4), torch.randn(3, 4), torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert torch.equal(a.grad, torch.zeros(3, 4))


def test_the_margin_is_averaged_over_the_samples():
    own, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    anchor = torch.stack([own, own, other])
    concept = torch.tensor([0, 0, 1])
    # Right by far, on the fence between both concepts, and wrong by a cosine of 1.
    features = torch.stack([own, own + other, own])
    wanted = (0 + 0.2 + 1.2) / 3
    assert concept_margin(features, features, anchor, concept).item() == pytest.approx(wanted, rel=1e-6)


def test_weights_below_zero_are_refused():
    with pytest.raises(ValueError, match="margin must be at least 0, got -1"):
        AlignmentWeights(margin=-1)
    assert not AlignmentWeights().on
    assert AlignmentWeights(kl=1).on
    assert not AlignmentWeights(kl=1).contrastive
