from __future__ import annotations

import torch

from sam3i_edge.model import attention
from sam3i_edge.model.attention import Attention, padding_bias


def test_queries_in_pieces_give_the_same(monkeypatch):
    attend = Attention(16, 2)
    query, key = torch.randn(2, 50, 16), torch.randn(2, 7, 16)
    bias = padding_bias(torch.arange(7)[None].expand(2, -1) < 5)
    rows = torch.randn(2, 2, 50, 7)
    with torch.no_grad():
        want = [attend(query, key, key, b) for b in (None, bias, rows)]
        monkeypatch.setattr(attention, "QUERY_ROWS", 16)
        got = [attend(query, key, key, b) for b in (None, bias, rows)]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
