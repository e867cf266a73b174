from concurrent.futures import ThreadPoolExecutor

import pytest

from sam3i_edge.pipeline.caching import Lru


def test_drops_the_least_recently_used():
    cache = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    assert len(cache) == 2


def test_putting_again_replaces_and_refreshes():
    cache = Lru(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        cache.put(key, value)
    assert [cache.get(key) for key in "abc"] == [3, None, 4]


def test_size_0_keeps_nothing():
    cache = Lru(0)
    cache.put("a", 1)
    assert cache.get("a") is None


def test_clear():
    cache = Lru(2)
    cache.put("a", 1)
    cache.clear()
    assert len(cache) == 0


def test_negative_size():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Lru(-1)


def test_threads_never_exceed_the_size():
    cache = Lru(3)

    def work(start):
        for n in range(2_000):
            cache.put((start + n) % 7, n)
            cache.get((start * n) % 7)
            if len(cache) > 4:  # one more while a thread is inside put
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(cache) == 3
