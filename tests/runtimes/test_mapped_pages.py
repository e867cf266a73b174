from __future__ import annotations

import mmap
import sys

import pytest

from sam3i_edge.runtimes import mapped_pages


def _resident(path) -> int:
    """Kilobytes of a mapped file that this process holds."""
    with open("/proc/self/smaps", encoding="utf-8") as file:
        lines = iter(file.read().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(field.split()[1]) for field in lines if field.startswith("Rss:"))
    raise AssertionError(f"{path} is not mapped")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what a process holds of a file")
def test_pages_of_a_folder_are_given_back_and_read_again(tmp_path):
    mapped, other = tmp_path / "a b" / "weights.bin", tmp_path / "other.bin"
    for path in (mapped, other):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(range(256)) * 256)
    with mapped.open("rb") as one, other.open("rb") as two:
        here = mmap.mmap(one.fileno(), 0, access=mmap.ACCESS_READ)
        there = mmap.mmap(two.fileno(), 0, access=mmap.ACCESS_READ)
        assert here[:] == there[:]
        assert (_resident(mapped), _resident(other)) == (64, 64)
        mapped_pages.release(mapped.parent)
        assert (_resident(mapped), _resident(other)) == (0, 64)
        assert here[:] == there[:]
