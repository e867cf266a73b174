import numpy as np
import pytest

from sam3i_edge.masks.iou import box_iou, mask_iou


def test_mask_iou_is_the_definition():
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 30)) > 0.5, rng.random((4, 30)) > 0.7
    a[0] = b[0] = False
    got = mask_iou(a, b)
    for i, j in np.ndindex(5, 4):
        union = (a[i] | b[j]).sum()
        assert got[i, j] == pytest.approx((a[i] & b[j]).sum() / union if union else 0)


def test_box_iou_is_the_definition():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 9]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 9]], np.float32)
    np.testing.assert_allclose(box_iou(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]], atol=1e-7)
    assert box_iou(a[:0], b).shape == (0, 4)
