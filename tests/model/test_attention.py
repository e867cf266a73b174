from __future__ import annotations

import torch

from sam3i_edge.model import attention
from sam3i_edge.model.attention import Attention, padding_bias


def test_an_export_takes_queries_in_pieces_and_gives_the_same(monkeypatch):
    attend = Attention(16, 2).eval()
    query, key = torch.randn(2, 50, 16), torch.randn(2, 7, 16)
    bias = padding_bias(torch.arange(7)[None].expand(2, -1) < 5)
    rows = torch.randn(2, 2, 50, 7)
    monkeypatch.setattr(attention, "LOGITS", 16 * 2 * 2 * 7)
    for given, pieces in ((None, 4), (bias, 4), (rows, 1)):
        inputs = (query, key, key, given)
        with torch.no_grad():
            exported = torch.export.export(attend, inputs)
            torch.testing.assert_close(exported.module()(*inputs), attend(*inputs), rtol=1e-5, atol=1e-6)
        assert sum("scaled_dot_product" in str(node.target) for node in exported.graph.nodes) == pieces
