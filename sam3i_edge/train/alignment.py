"""What binds the two branches of stage 3: losses between a simple and a complex instruction for one answer.

Source: SAM3-I (arXiv:2512.04585), in the form of its released code. Where that differs from the formula that
the name of a loss promises, the function says so. `a` and `b` are the branches; row i is one sample in both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3i_edge.errors import TrainingError

Difficulty = Literal["released", "jensen_shannon"]

_TEMPERATURE = 0.1
_SOFT_NEGATIVE = 0.5  # of a negative whose concept is the same
_MARGIN = 0.2
_P_MIN = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentWeights:
    """Weights of the alignment losses, 0 for off; each multiplies its term in the sum.

    Attributes:
        kl: `symmetric_kl` of the semantic maps. hard: `difficulty_bce` of the semantic maps.
        infonce: `instance_infonce` of the text features. margin: `concept_margin` of the text features.
        difficulty: form of the weight inside `hard`.
    """

    kl: float = 0.0
    hard: float = 0.0
    infonce: float = 0.0
    margin: float = 0.0
    difficulty: Difficulty = "released"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "difficulty" and value < 0:
                raise ValueError(f"{field.name} must be at least 0, got {value}")

    @property
    def on(self) -> bool:
        """Whether any term counts."""
        return max(self.kl, self.hard, self.infonce, self.margin) > 0

    @property
    def contrastive(self) -> bool:
        """Whether a term counts that compares samples, and vanishes where there is only one."""
        return max(self.infonce, self.margin) > 0


# Those of the released configuration; the released loss class has larger defaults, which it overrides.
SAM3I_ALIGNMENT = AlignmentWeights(kl=1e-3, hard=1.0, infonce=1.0, margin=1.0)


def map_kl(a: Tensor, b: Tensor) -> Tensor:
    """`KL(P_b || P_a)` with P the softmax over all pixels of a map: what `a` pays for differing from `b`.

    Summed over pixels, averaged over samples. A softmax makes one distribution of a whole map: the usual
    consistency loss takes each pixel as a Bernoulli variable.

    Args:
        a: logits [S, h, w] float32, with gradient.
        b: logits [S, h, w] float32, taken as constant.

    Returns:
        float32 [].
    """
    log_a = a.flatten(1).log_softmax(1)
    log_b = b.detach().flatten(1).log_softmax(1)
    return (log_b.exp() * (log_b - log_a)).sum(1).mean()


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """`(KL(P_b || P_a) + KL(P_a || P_b)) / 2`, each branch learning from the other as a constant.

    Args:
        a: semantic logits [S, h, w] float32.
        b: semantic logits [S, h, w] float32.

    Returns:
        float32 [].
    """
    return (map_kl(a, b) + map_kl(b, a)) / 2


def difficulty(a: Tensor, b: Tensor, form: Difficulty) -> Tensor:
    """How much two maps disagree, by pixel, without gradient.

    With p the probabilities and `m = (p_a + p_b) / 2`, "jensen_shannon" is the divergence of two Bernoulli
    variables, `(KL(p_a || m) + KL(p_b || m)) / 2`, in 0..ln 2. "released" is `m ln(m / sqrt(p_a p_b))`: the
    foreground half of that with the arguments of each KL exchanged. It is not symmetric, and goes up to 3.1:
    p of 0.5 against 0.01 weighs eight times what 0.5 against 0.99 does.

    Args:
        a: logits, any shape, float32.
        b: logits of the same shape.
        form: which.

    Returns:
        float32 of that shape, at least 0.
    """
    p, q = (x.detach().sigmoid().clamp(_P_MIN, 1 - _P_MIN) for x in (a, b))
    if form == "released":
        m = (p + q) / 2
        return m * (m / (p * q).sqrt()).log()
    return (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2).clamp(min=0)


def weighted_bce(a: Tensor, b: Tensor, target: Tensor, form: Difficulty = "released") -> Tensor:
    """Binary cross-entropy of `a` with the targets, weighted by its disagreement with `b`: mean over pixels.

    Args:
        a: semantic logits [S, h, w] float32, with gradient.
        b: semantic logits [S, h, w] float32, taken as constant.
        target: union masks [S, H, W] float32 in 0..1; the logits are resized to it, bilinearly.
        form: of the weight, see `difficulty`.

    Returns:
        float32 [].
    """
    if a.shape[-2:] != target.shape[-2:]:
        size = target.shape[-2:]
        a, b = (F.interpolate(x[:, None], size, mode="bilinear", align_corners=False)[:, 0] for x in (a, b))
    bce = F.binary_cross_entropy_with_logits(a, target, reduction="none")
    return (difficulty(a, b, form) * bce).mean()


def difficulty_bce(a: Tensor, b: Tensor, target: Tensor, form: Difficulty = "released") -> Tensor:
    """The mean of `weighted_bce` of both branches; arguments as there, both with gradient."""
    return (weighted_bce(a, b, target, form) + weighted_bce(b, a, target, form)) / 2


def instance_infonce(a: Tensor, b: Tensor, concept: Tensor) -> Tensor:
    """InfoNCE over 2S anchors whose positive is the same sample in the other branch.

    `mean_i[ln(sum_j w_ij exp(s_ij) + 1e-8) - s_i,pos]` with s the cosine / 0.1 less the row's maximum, w = 0
    for the anchor itself, 1 for its positive, 0.5 for others with the same concept, 1 for the rest. Same
    concepts are softer negatives than in SimCLR's NT-Xent (arXiv:2002.05709), which this is otherwise. With
    one sample there is no negative and it is 0 up to the 1e-8.

    Args:
        a: features [S, C] float32, of any length.
        b: features [S, C] float32.
        concept: int64 [S], equal where the concept is.

    Returns:
        float32 [].
    """
    samples = len(a)
    anchors = F.normalize(torch.cat((a, b)), dim=1)
    scores = anchors @ anchors.T / _TEMPERATURE
    scores = scores - scores.amax(1, keepdim=True).detach()
    row = torch.arange(2 * samples, device=a.device)
    positive = (row + samples) % (2 * samples)
    both = concept.repeat(2)
    weight = 1 - (1 - _SOFT_NEGATIVE) * (both[:, None] == both).float()
    weight[row, positive] = 1.0
    weight[row, row] = 0.0
    return ((weight * scores.exp()).sum(1).add(1e-8).log() - scores[row, positive]).mean()


def concept_margin(a: Tensor, b: Tensor, anchor: Tensor, concept: Tensor) -> Tensor:
    """Keeps a sample nearer to its own concept than to any other, by a margin of 0.2.

    `relu(max_j cos(f, c_j) - cos(f, c_own) + 0.2)` with f the mean of both branches' raw features and j the
    samples of other concepts; averaged over the samples, 0 where there is but one concept. f is the mean of
    features before they are normalised, so the longer one leads.

    Args:
        a: features [S, C] float32, of any length.
        b: features [S, C] float32.
        anchor: features of the concepts [S, C] float32.
        concept: int64 [S], equal where the concept is.

    Returns:
        float32 [].
    """
    scores = F.normalize((a + b) / 2, dim=1) @ F.normalize(anchor, dim=1).T
    hardest = scores.masked_fill(concept[:, None] == concept, -torch.inf).amax(1)
    return (hardest - scores.diagonal() + _MARGIN).relu().mean()


def alignment_loss(
    maps: Tensor, target: Tensor, features: Tensor, concept: Tensor, weights: AlignmentWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the four, and each by its name.

    Args:
        maps: semantic logits [S, 2, h, w] float32, the simple and the complex branch of this rank's samples.
        target: union masks [S, H, W] float32 in 0..1 of the same.
        features: projected texts [N, 3, C] float32 of simple, complex and concept, of all ranks' samples.
        concept: int64 [N], equal where the concept is.
        weights: of the terms.

    Returns:
        The sum, float32 [], and every unweighted term as "align_" and the name of its weight, detached.

    Raises:
        TrainingError: a term that compares samples is on and N is below 2: it would be 0 for every model.
    """
    check_samples(len(features), weights)
    simple, complex_, anchor = features.unbind(1)
    terms = {
        "kl": symmetric_kl(maps[:, 0], maps[:, 1]),
        "hard": difficulty_bce(maps[:, 0], maps[:, 1], target, weights.difficulty),
        "infonce": instance_infonce(simple, complex_, concept),
        "margin": concept_margin(simple, complex_, anchor, concept),
    }
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {f"align_{name}": term.detach() for name, term in terms.items()}


def check_samples(samples: int, weights: AlignmentWeights) -> None:
    """Refuses a step whose contrastive terms would vanish, as they do in the released batch of one.

    Raises:
        TrainingError: as in `alignment_loss`.
    """
    if weights.contrastive and samples < 2:
        raise TrainingError(
            f"alignment.infonce and margin compare samples, and a step has {samples}: raise images, the "
            "stage's pairs or the number of ranks, or set both weights to 0"
        )


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.log() + (1 - p) * (1 - p).log())
