"""Minimum-cost one-to-one assignment, exact, in NumPy alone.

Source: the shortest augmenting path method of Jonker and Volgenant, "A shortest augmenting path algorithm for
dense and sparse linear assignment problems", Computing 38, 1987, without its initialisation heuristics.
The evaluation matches predictions with targets through it, and so can a trainer on a machine without SciPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def linear_assignment(cost: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs rows with columns, each at most once, at the least total cost.

    As many pairs as the shorter side has entries. Where several assignments cost the same, any one of them is
    returned. O(min(N, M)^2 * max(N, M)).

    Args:
        cost: [N, M] real and finite; N or M may be 0. Negate it to maximise instead.

    Returns:
        rows: [min(N, M)] int64, ascending.
        columns: [min(N, M)] int64, the column of each of those rows.

    Raises:
        ValueError: `cost` is not two-dimensional, or holds NaN or infinity.
    """
    matrix = np.asarray(cost, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"cost must have two dimensions [rows, columns], got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("cost must be finite, got NaN or infinity: give forbidden pairs a large finite cost")
    if matrix.shape[0] <= matrix.shape[1]:
        return np.arange(matrix.shape[0], dtype=np.int64), _columns_of(matrix)
    rows_of_columns = _columns_of(np.ascontiguousarray(matrix.T))
    order = np.argsort(rows_of_columns)
    return rows_of_columns[order], order.astype(np.int64)


def _columns_of(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column of each row, for no more rows than columns."""
    num_rows, num_columns = cost.shape
    if num_rows == 0:
        return np.empty(0, dtype=np.int64)
    cheapest: NDArray[np.int64] = cost.argmin(axis=1).astype(np.int64)
    # Every row has its own minimum: nothing can cost less. The usual case of a good detector.
    if np.unique(cheapest).size == num_rows:
        return cheapest

    row_of = np.full(num_columns, -1, dtype=np.int64)
    column_of = np.full(num_rows, -1, dtype=np.int64)
    row_price = np.zeros(num_rows)
    column_price = np.zeros(num_columns)
    for start in range(num_rows):
        distance = np.full(num_columns, np.inf)
        via = np.full(num_columns, -1, dtype=np.int64)
        settled = np.zeros(num_columns, dtype=bool)
        row, shortest, column = start, 0.0, -1
        while column < 0 or row_of[column] >= 0:
            if column >= 0:
                row = int(row_of[column])
            through = shortest + (cost[row] - row_price[row] - column_price)
            better = ~settled & (through < distance)
            distance[better] = through[better]
            via[better] = row
            column = int(np.where(settled, np.inf, distance).argmin())
            shortest = float(distance[column])
            settled[column] = True
        # The last column settled is free and ends the path; its price stays, as its distance is the shortest.
        gain = shortest - distance[settled]
        visited = row_of[settled]
        row_price[visited[visited >= 0]] += gain[visited >= 0]
        row_price[start] += shortest
        column_price[settled] -= gain
        while True:
            row = int(via[column])
            row_of[column] = row
            column_of[row], column = column, int(column_of[row])
            if row == start:
                break
    return column_of
