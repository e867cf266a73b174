"""What a process holds while it opens and runs a model's graphs, one after the other and all kept.

    python benchmarks/memory.py FOLDER [--runtime openvino] [--low-memory] [--close-text] [--threads 2]

FOLDER has text encoders, of which one is run, `image_encoder`, `detector` and, if it takes boxes,
`box_encoder`, as .onnx or .xml; inputs are random. Prints VmRSS as the kernel splits it, own memory and
pages of files, and VmHWM, the most so far. Linux only.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sam3i_edge.runtimes import open_runtime

GRAPHS = ("text_encoder.*", "image_encoder", "box_encoder", "detector")


def held() -> str:
    """VmRSS and VmHWM of this process, MiB."""
    status = Path("/proc/self/status").read_text()
    found = {name: int(size) >> 10 for name, size in re.findall(r"(\w+):\s+(\d+) kB", status)}
    return (f"own {found['RssAnon']:,} MiB, pages of files {found['RssFile']:,} MiB, "
            f"most so far {found['VmHWM']:,} MiB")  # fmt: skip


def random_inputs(path: Path) -> dict[str, NDArray[Any]]:
    """Values of a graph's inputs, whose shapes are static."""
    ports: list[tuple[str, Any, tuple[int, ...]]] = []
    if path.suffix == ".onnx":
        for value in onnx.load(path, load_external_data=False).graph.input:
            tensor = value.type.tensor_type
            shape = tuple(side.dim_value for side in tensor.shape.dim)
            ports.append((value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape))
    else:
        from sam3i_edge.runtimes.ov import shared_core

        for port in shared_core().read_model(path).inputs:
            kind = port.get_element_type().to_dtype()
            ports.append((port.get_any_name(), kind, tuple(port.get_shape())))
    rng = np.random.default_rng(0)
    return {
        name: np.ones(shape, kind) if name == "level" else rng.uniform(0, 2, shape).astype(kind)
        for name, kind, shape in ports
    }


def main() -> None:
    """Prints a line after each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--low-memory", action="store_true")
    parser.add_argument("--close-text", action="store_true", help="as keep_text_encoders=False does")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    suffix = ".onnx" if given.runtime == "onnxruntime" else ".xml"
    found = [sorted(given.folder.glob(f"{graph}{suffix}")) for graph in GRAPHS]
    lacking = [graph + suffix for graph, paths in zip(GRAPHS, found, strict=True) if not paths]
    if set(lacking) - {f"box_encoder{suffix}"}:
        parser.error(f"{given.folder} lacks {', '.join(lacking)}")
    opened = []
    print(f"start: {held()}")
    for *_, path in filter(None, found):  # of three text encoders "simple" is the last
        runtime = open_runtime(given.runtime, path, "cpu", threads=given.threads, low_memory=given.low_memory)
        opened.append(runtime)
        print(f"{path.stem} opened: {held()}", flush=True)
        runtime.run(random_inputs(path))
        print(f"{path.stem} run: {held()}", flush=True)
        if given.close_text and path.stem.startswith("text_encoder"):
            runtime.close()


if __name__ == "__main__":
    main()
