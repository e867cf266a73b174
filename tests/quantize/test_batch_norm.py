from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sam3i_edge.model.convnet import ConvNorm
from sam3i_edge.quantize.batch_norm import drop_batch_norms, fold_batch_norms


def test_folding_leaves_the_pyramid_unchanged(model):
    images = torch.randn(2, 3, 64, 64)
    before = model.image_encoder(images)
    folded = copy.deepcopy(model)
    fold_batch_norms(folded)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    for one, other in zip(before, folded.image_encoder(images), strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(one.abs().max())
    fold_batch_norms(folded)  # nothing is left to fold
    for one, other in zip(before, folded.image_encoder(images), strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(one.abs().max())


def test_dropping_gives_the_same_modules_without_values(model):
    folded = copy.deepcopy(model)
    fold_batch_norms(folded)
    drop_batch_norms(model)
    assert model.state_dict().keys() == folded.state_dict().keys()
    assert model.image_encoder.stem[0].weight.is_meta
    assert not model.text_encoder.projection.weight.is_meta


def test_a_norm_without_statistics_is_refused():
    pair = ConvNorm(3, 4)
    pair[1] = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(TypeError, match="without running statistics"):
        fold_batch_norms(nn.ModuleList([pair]))
