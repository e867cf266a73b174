from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam3i_edge.levels import LEVELS
from sam3i_edge.model.adapters import QueryAdapter
from sam3i_edge.model.config import SAM3I_NANO
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import group_of

LEVEL = torch.arange(len(LEVELS))


@pytest.fixture
def trained() -> QueryAdapter:
    torch.manual_seed(0)
    adapter = QueryAdapter(32, 4)
    for branch in (adapter.simple, adapter.complex):
        torch.nn.init.normal_(branch.o_proj.weight)
    return adapter


def test_a_new_one_changes_nothing():
    h, position = torch.randn(3, 5, 32), torch.randn(3, 5, 32)
    assert torch.equal(QueryAdapter(32, 4)(h, position, LEVEL), h)


@torch.no_grad()
def test_each_level_has_its_own_and_concept_none(trained):
    h, position = torch.randn(1, 5, 32).expand(3, -1, -1), torch.randn(1, 5, 32).expand(3, -1, -1)
    concept, simple, complex_ = trained(h, position, LEVEL)
    q = (h + position)[:1]
    assert torch.equal(concept, h[0])
    assert torch.allclose(simple, h[0] + trained.simple(q, q, h[:1])[0], atol=1e-5)
    assert torch.allclose(complex_, h[0] + trained.complex(q, q, h[:1])[0], atol=1e-5)


@torch.no_grad()
def test_a_query_answers_to_what_another_one_holds(trained):
    h, position = torch.randn(1, 5, 32), torch.randn(1, 5, 32)
    other = h.clone()
    other[:, 4] += 1
    level = torch.tensor([1])
    assert not torch.allclose(trained(h, position, level)[:, 0], trained(other, position, level)[:, 0])


def test_the_model_has_one_in_every_decoder_layer_and_starts_the_complex_one_from_the_simple_one():
    torch.manual_seed(0)
    model = SAM3I(replace(SAM3I_NANO, query_adapters=True))
    names = [name for name, _ in model.named_parameters() if ".query_adapter." in name]
    assert len(names) == SAM3I_NANO.decoder_layers * 2 * 8
    assert {group_of(name) for name in names} == {"simple", "complex"}
    state = model.state_dict()
    for name in names:
        if ".simple." in name:
            state[name].normal_()
    model.fork_bridge()
    for name in names:
        assert torch.equal(state[name], state[name.replace(".complex.", ".simple.")])
