from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sam3i_edge.evaluate.assignment import linear_assignment


def _check(cost: np.ndarray) -> None:
    rows, columns = linear_assignment(cost)
    assert rows.dtype == columns.dtype == np.int64
    assert len(rows) == len(columns) == min(cost.shape)
    assert (np.diff(rows) > 0).all()
    assert len(set(columns.tolist())) == len(columns)
    best = cost[linear_sum_assignment(cost)].sum()
    np.testing.assert_allclose(cost[rows, columns].sum(), best, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 5), (12, 40), (40, 12), (30, 30)])
def test_costs_as_little_as_scipys(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    for _ in range(5):
        _check(rng.normal(size=shape))
        # Small integers: many ties, and rows that fight over the same column.
        _check(rng.integers(0, 4, shape).astype(float))
        # A cost of rank one is the worst case: every row prefers the columns in the same order.
        _check(np.outer(rng.random(shape[0]), rng.random(shape[1])))


def test_equals_scipys_pairs_where_the_best_is_unique() -> None:
    cost = np.random.default_rng(3).normal(size=(9, 14))
    for matrix in (cost, cost.T):
        np.testing.assert_array_equal(linear_assignment(matrix), linear_sum_assignment(matrix))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_any_small_matrix(rows: int, columns: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(-3, 3), min_size=rows * columns, max_size=rows * columns))
    _check(np.array(values, dtype=float).reshape(rows, columns))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_an_empty_side_gives_no_pair(shape: tuple[int, int]) -> None:
    rows, columns = linear_assignment(np.zeros(shape))
    assert rows.shape == columns.shape == (0,)
    assert rows.dtype == columns.dtype == np.int64


def test_refuses_what_has_no_order() -> None:
    with pytest.raises(ValueError, match="finite"):
        linear_assignment([[0.0, np.nan]])
    with pytest.raises(ValueError, match="finite"):
        linear_assignment([[0.0, np.inf]])
    with pytest.raises(ValueError, match=r"two dimensions.*\(3,\)"):
        linear_assignment([0.0, 1.0, 2.0])
