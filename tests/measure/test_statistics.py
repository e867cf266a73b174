from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge.measure.statistics import latency, slowed, speedup


def test_percentiles_are_numpys_and_samples_are_kept_in_order() -> None:
    samples = [5.0, 1.0, 3.0, 2.0, 4.0]
    found = latency(samples)
    assert (found.count, found.p50, found.mean) == (5, 3.0, 3.0)
    assert found.p90 == pytest.approx(4.6)
    assert found.p99 == pytest.approx(4.96)
    assert found.variation == pytest.approx(np.std(samples) / 3)
    assert found.samples == tuple(samples)


def test_no_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="no time was measured"):
        latency([])
    with pytest.raises(ValueError, match="two series"):
        speedup([], [1.0])
    with pytest.raises(ValueError, match="above 0"):
        speedup([1.0], [0.0])


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        before, after = 20 * rng.lognormal(0, 0.1, 64), 10 * rng.lognormal(0, 0.1, 64)
        found = speedup(before, after, seed)
        held += found.low <= 2 <= found.high
    assert 50 <= held <= 60


def test_noise_that_comes_in_runs_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    alone = 10 + rng.normal(0, 1, 64)
    runs = np.sort(alone.reshape(8, 8), axis=None)  # the same values, each beside its like
    alone_width, runs_width = (
        found.high - found.low for found in (speedup(alone, alone), speedup(runs, runs))
    )
    assert runs_width > 1.5 * alone_width


def test_equal_seeds_give_equal_intervals() -> None:
    samples = list(np.random.default_rng(2).lognormal(0, 0.1, 40))
    assert speedup(samples, samples) == speedup(samples, samples)


def test_a_machine_that_heats_up_is_seen() -> None:
    assert not slowed([10.0] * 30)
    assert not slowed([10.0] * 20 + [10.9] * 10)
    assert slowed([10.0] * 20 + [11.2] * 10)
    assert not slowed([1.0, 99.0])


def test_few_samples_have_an_interval_too() -> None:
    found = speedup([10.0, 12.0, 11.0, 15.0, 9.0], [5.0, 6.0, 5.5, 7.5, 4.5])
    assert found.low < found.value == 2 < found.high
