from __future__ import annotations

import pytest
import torch

from sam3i_edge.model.boxes import box_iou, generalized_iou


def test_overlap_by_hand():
    a = torch.tensor([[0.0, 0.0, 0.4, 0.2], [0.0, 0.0, 0.2, 0.2], [0.1, 0.1, 0.5, 0.9]])
    b = torch.tensor([[0.2, 0.0, 0.6, 0.2], [0.8, 0.0, 1.0, 0.2], [0.1, 0.1, 0.5, 0.9]])
    iou, union = box_iou(a, b)
    torch.testing.assert_close(iou, torch.tensor([1 / 3, 0.0, 1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(union, torch.tensor([0.12, 0.08, 0.32]))
    # Apart: IoU 0, hull 1.0 x 0.2, union 0.08.
    torch.testing.assert_close(generalized_iou(a, b)[1], torch.tensor(-0.6), atol=1e-5, rtol=0)
    torch.testing.assert_close(generalized_iou(a, b)[2], torch.tensor(1.0), atol=1e-5, rtol=0)


def test_generalized_iou_differentiates():
    torch.manual_seed(0)
    low = torch.rand(5, 2, dtype=torch.float64) / 2
    a = torch.cat([low, low + 0.1 + torch.rand(5, 2, dtype=torch.float64) / 3], 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: generalized_iou(x[:, None], x.flip(0)[None] * 0.9 + 0.03), (a,))


@pytest.mark.parametrize("size", [0.0, 0.2])
def test_a_box_without_area_gives_finite_gradients(size):
    a = torch.tensor([[0.3, 0.3, 0.3, 0.3 + size]], requires_grad=True)
    generalized_iou(a, a.detach().clone()).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
