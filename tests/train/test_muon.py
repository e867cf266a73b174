from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.train.muon import MOMENTUM, MuonAdamW, orthogonal, takes
from sam3i_edge.train.presets import NANO, TABLE
from sam3i_edge.train.run_config import TrainConfig
from sam3i_edge.train.stages import freeze, optimizer


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_orthogonal_keeps_directions_and_evens_their_lengths(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    made = orthogonal(matrix).float()
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    lengths = torch.diag(u.T @ made @ vh.T)
    assert made.shape == matrix.shape
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3
    torch.testing.assert_close(u @ torch.diag(lengths) @ vh, made, atol=0.05, rtol=0)


def test_the_step_of_a_kernel_is_torchs_of_its_matrix():
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(32, 16, 3, 3))
    start = kernel.detach().flatten(1).clone()
    matrix = torch.nn.Parameter(start.clone())
    ours = MuonAdamW([{"params": [kernel], "muon": True, "weight_decay": 0.1}], lr=0.01)
    theirs = torch.optim.Muon(
        [matrix], lr=0.01, weight_decay=0.1, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        kernel.grad = torch.randn_like(kernel)
        matrix.grad = kernel.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    moved = matrix.detach() - start
    assert (kernel.detach().flatten(1) - matrix.detach()).norm() < 0.05 * moved.norm()  # bfloat16 inside


def test_the_rest_is_adamw(tiny_model):
    torch.manual_seed(0)
    one, other = SAM3I(tiny_model), SAM3I(tiny_model)
    other.load_state_dict(one.state_dict())
    gradients = {name: torch.randn_like(p) for name, p in one.named_parameters()}
    for model, muon in ((one, True), (other, False)):
        learns = freeze(model, NANO.stages[1])
        chosen = optimizer(learns, 0.1, muon=muon)
        for group in chosen.param_groups:
            group["lr"] = 0.01
        for _ in range(2):
            for name, parameter in learns.items():
                parameter.grad = gradients[name].clone()
            chosen.step()
    by_muon = set()
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        if not torch.equal(a, b):
            by_muon.add(name)
            assert takes(name, a)
    assert "text_encoder.layers.0.mlp.fc1.weight" in by_muon
    assert not any("token_embedding" in name or "query_embed" in name for name in by_muon)


def test_its_state_survives_a_checkpoint(tiny_model):
    torch.manual_seed(0)
    model = SAM3I(tiny_model)
    learns = freeze(model, NANO.stages[1])
    first, second = optimizer(learns, 0.1, muon=True), optimizer(learns, 0.1, muon=True)
    for parameter in learns.values():
        parameter.grad = torch.randn_like(parameter)
    first.step()
    second.load_state_dict(first.state_dict())
    name = "text_encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(first.state[learns[name]]["momentum"], second.state[learns[name]]["momentum"])
    assert [g.get("muon") for g in first.param_groups] == [g.get("muon") for g in second.param_groups]


def test_a_closure_and_a_shared_model_are_refused(tiny_model):
    chosen = optimizer(freeze(SAM3I(tiny_model), NANO.stages[1]), 0.1, muon=True)
    with pytest.raises(ValueError, match="takes no closure"):
        chosen.step(lambda: 0.0)
    with pytest.raises(ValueError, match="muon need the whole model"):
        replace(TABLE, muon=True, shard=True)
    run = replace(TABLE, muon=True)
    assert TrainConfig.from_json(json.loads(json.dumps(run.to_json()))) == run
