"""Writes weights one tensor at a time, so that a model larger than memory can be converted."""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_STORED = {True: ("I8", 1), False: ("F32", 4)}
_MADV_PAGEOUT = 21  # linux/mman.h, since 5.4; loses nothing, whatever the memory is


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], progress: Callable[[int], None] | None = None
) -> None:
    """Writes float32 and int8 tensors as safetensors, holding one of them at a time.

    The library's own writer takes all tensors at once, which for half precision or a mapped file means the
    whole model in memory. Source: the format's specification (huggingface/safetensors, README).

    Args:
        path: file to write.
        tensors: name -> tensor of int8, which stays that, or of any float type; float32 keeps its bits.
            int8 ones come last in the file, so that all others are aligned.
        progress: called with the bytes written so far.

    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, object] = {}
    end = 0
    ordered = sorted(tensors.items(), key=lambda item: item[1].dtype == torch.int8)
    for name, value in ordered:
        dtype, width = _STORED[value.dtype == torch.int8]
        begin, end = end, end + width * value.numel()
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, value in ordered:
            stored = value if value.dtype == torch.int8 else value.to(torch.float32)
            array = stored.detach().contiguous().numpy()
            file.write(array.reshape(-1).view(np.uint8).data)
            _release(value)
            done += array.nbytes
            if progress:
                progress(done)


def _release(tensor: torch.Tensor) -> None:
    """Tells Linux that a tensor's pages may leave memory; a mapped file's are read again when needed."""
    if _LIBC is None or not tensor.numel():
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    length = (tensor.data_ptr() + tensor.nbytes - start) // page * page
    if length > 0:
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_PAGEOUT)
