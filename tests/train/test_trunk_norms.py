from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam3i_edge.model.config import SAM3I_NANO, ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.smaller_encoder import smaller
from sam3i_edge.train.trunk_norms import NormedConv, add_norms, folded


@pytest.mark.parametrize("backbone", ["repvit-m0.9", "tinyvit-5m", "efficientvit-b0"])
def test_what_is_written_gives_what_was_trained(backbone):
    sizes = smaller(SAM3I_NANO, backbone, 0.25)
    config = replace(ModelConfig.from_dict(SAM3I_NANO.to_dict() | sizes), image_size=64)
    trained = SAM3I(config)
    add_norms(trained)
    norms = [m.batch_norm for m in trained.modules() if isinstance(m, NormedConv)]
    assert len(norms) > 8
    encoder = trained.image_encoder.train()
    for _ in range(3):
        encoder(torch.rand(2, 3, 64, 64) * 2 - 1)
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.2, 0.2)
    plain = SAM3I(config)
    plain.load_state_dict(folded(trained.state_dict()))  # strict: every name, and no other
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        for got, want in zip(plain.eval().image_encoder(pixels), encoder.eval()(pixels), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_models_without_a_students_trunk_stay_as_they_are(tiny_model):
    model = SAM3I(tiny_model)
    before = model.state_dict()
    add_norms(model)
    after = folded(model.state_dict())
    assert after.keys() == before.keys()
    assert all(after[name] is value or torch.equal(after[name], value) for name, value in before.items())
