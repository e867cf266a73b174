"""Pages of mapped files, which stay in a process until the kernel runs short of memory."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def release(folder: Path) -> None:
    """Gives back what this process holds of the files that are mapped from `folder`, to read only.

    What is touched later is read again. Linux; elsewhere nothing happens.
    """
    if not _MAPS.exists():
        return
    libc, folder = ctypes.CDLL(None), folder.resolve()
    for line in _MAPS.read_text(encoding="utf-8").splitlines():
        # 7f00-7f80 r--p 00000000 fe:00 1234  /path of the file
        places, rights, *_, path = line.split(maxsplit=5)
        if "w" not in rights and Path(path).parent == folder:
            start, end = (int(place, 16) for place in places.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
