"""The torch model itself as a runtime: float or quantized, on a CPU or a CUDA device.

A graph's file is a small JSON: which graph, and where in the bundle its weights are. On CUDA the operators of
`sam3i_edge.kernels` run as Triton kernels, and large outputs stay on the device until they are read: the maps
of an image (111 MB at 1008 px) never leave it, and of the masks those come back that passed the threshold.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import GraphSpec, graph_specs
from sam3i_edge.quantize.spec import open_model
from sam3i_edge.runtimes.on_device import LARGE, OnDevice, to_host
from sam3i_edge.runtimes.tiny_graph import tiny_input


def _own_graphs() -> None:
    """Lets this thread have CUDA graphs: before 2.13 torch gives them to the first one that imports them."""
    from torch._inductor import cudagraph_trees

    if not hasattr(cudagraph_trees.local, "tree_manager_containers"):
        cudagraph_trees.local.tree_manager_containers = {}
        cudagraph_trees.local.tree_manager_locks = defaultdict(threading.Lock)


# A capture that another thread disturbs fails: compiled graphs are compiled and run in one, whoever asks.
_COMPILED = ThreadPoolExecutor(1, "compiled graphs", initializer=_own_graphs)


class GraphFile(BaseModel):
    """Content of a graph's file.

    Attributes:
        graph: name of the graph.
        source: folder of the float weights or file of the quantized model, relative to the bundle.
        config: sizes of the model.
        boxes: box slots of the prompt.
        half: compute products in float16, everything that torch's autocast holds to be sensitive in float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: str
    source: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")
    config: dict[str, Any]
    boxes: int = Field(default=0, ge=0)
    half: bool = False


class EagerRuntime:
    """One graph of the model in torch. Not thread-safe by contract, see `Runtime`.

    Args:
        spec: the graph, on `device`.
        device: CPU or CUDA.
        half: products in float16.
        compile: one compiled graph, on CUDA replayed as a CUDA graph; the first run compiles it.
        large: outputs of so many bytes stay on the device, as `OnDevice`; None for none.
    """

    def __init__(
        self,
        spec: GraphSpec,
        device: torch.device,
        *,
        half: bool = False,
        compile: bool = False,
        large: int | None = None,
    ) -> None:
        self._spec: GraphSpec | None = spec
        self._name, self._device, self._half, self._large = spec.name, device, half, large
        self._compiled = compile
        self._call: Any = (
            torch.compile(spec.module, mode="reduce-overhead", fullgraph=True) if compile else spec.module
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once; see `Runtime.run`."""
        spec = self._spec
        if spec is None:
            raise RuntimeUnavailable(f"{self._name} was closed: open it again to run it")
        if inputs.keys() != spec.inputs.keys():
            raise ValueError(
                f"{self._name} wants the inputs {', '.join(spec.inputs)}, got {', '.join(inputs) or 'none'}"
            )
        given = []
        for name, example in spec.inputs.items():
            array: Any = inputs[name]
            kept = isinstance(array, OnDevice)
            value = array.tensor if kept else torch.from_numpy(np.ascontiguousarray(array))
            if value.shape != example.shape or value.dtype != example.dtype:
                raise ValueError(
                    f"{self._name}: input {name!r} is {value.dtype} {list(value.shape)}, "
                    f"want {example.dtype} {list(example.shape)}"
                )
            if self._device.type == "cuda" and not kept:
                value = value.pin_memory()
            given.append(value.to(self._device, non_blocking=True))
        try:
            found = (
                _COMPILED.submit(self._compute, given).result() if self._compiled else self._compute(given)
            )
        except RuntimeError as error:
            raise RuntimeUnavailable(
                f"{self._name} failed in torch: {' '.join(str(error).split())}"
            ) from error
        values = found if isinstance(found, tuple) else (found,)
        single = [value.float() if value.dtype == torch.float16 else value for value in values]
        small = {n: v for n, v in zip(spec.outputs, single, strict=True) if not self._stays(v)}
        outputs = dict(zip(small, to_host(list(small.values())), strict=True))
        for name, value in zip(spec.outputs, single, strict=True):
            if name not in small:
                # A CUDA graph's outputs are overwritten by its next replay.
                stays: Any = OnDevice(value.clone() if self._compiled else value)
                outputs[name] = stays
        return {name: outputs[name] for name in spec.outputs}

    def _compute(self, given: list[torch.Tensor]) -> Any:
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.float16, enabled=self._half),
        ):
            if self._compiled:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            return self._call(*given)

    def _stays(self, value: torch.Tensor) -> bool:
        return self._large is not None and value.nbytes >= self._large

    def close(self) -> None:
        """Frees the model."""
        self._spec = None
        self._call = None


def open(
    artifact: Path,
    device: str,
    threads: int | None = None,
    *,
    low_memory: bool = False,
    compile: bool = False,
) -> EagerRuntime:
    """Opens a graph's file; see `sam3i_edge.runtimes.open_runtime`.

    With `compile` it is compiled here, by a run on zeros, so that no question waits for it. Weights are
    mapped from their file as they are, so `low_memory` changes nothing. `threads` is torch's own setting, one
    for the whole process; None leaves it.
    """
    del low_memory
    where = _device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        described = GraphFile.model_validate_json(artifact.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"the graph {artifact} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{artifact} describes no graph: {first_problem(error)}") from error
    bundle = artifact.parent.parent
    source = bundle / described.source
    if not source.resolve().is_relative_to(bundle.resolve()) or not source.exists():
        raise ArtifactError(f"{artifact} names the weights {described.source!r}, which the bundle lacks")
    config = ModelConfig.from_dict(described.config)
    model = open_model(source, config, described.graph)
    found = [spec for spec in graph_specs(model, described.boxes) if spec.name == described.graph]
    if not found:
        raise ArtifactError(f"{artifact} names the graph {described.graph!r}, which the model lacks")
    spec = found[0]
    if described.half:
        _halve(spec.module)
    # The other graphs' parameters have no storage and must not be moved.
    runtime = EagerRuntime(
        _moved(spec, where),
        where,
        half=described.half,
        compile=compile,
        large=LARGE if where.type == "cuda" else None,
    )
    if compile:
        runtime.run({name: example.numpy() for name, example in spec.inputs.items()})
    return runtime


def write_graph_file(
    path: Path, graph: str, source: str, config: ModelConfig, boxes: int, *, half: bool = False
) -> None:
    """Writes the file of one graph."""
    content = GraphFile(graph=graph, source=source, config=config.to_dict(), boxes=boxes, half=half)
    path.write_text(json.dumps(content.model_dump(), indent=1) + "\n", encoding="utf-8")


@functools.cache
def probe(device: str) -> None:
    """Adds 1 and 1 on the device; see `sam3i_edge.runtimes.probe`."""
    try:
        two = float((torch.ones(1, device=_device(device)) + 1).cpu())
    except RuntimeError as error:
        raise RuntimeUnavailable(f"torch {torch.__version__} does not run on {device}: {error}") from error
    if two != 2.0:
        raise RuntimeUnavailable(f"torch {torch.__version__} computes 1 + 1 = {two} on {device}")


class _Tiny(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ x, -1)


def open_tiny(device: str) -> EagerRuntime:
    """The same function as `sam3i_edge.runtimes.tiny_graph.tiny_graph`.

    Raises:
        RuntimeUnavailable: torch does not run on the device.
    """
    spec = GraphSpec("tiny", _Tiny(), {"x": torch.from_numpy(tiny_input())}, ("y",))
    return EagerRuntime(spec, _device(device))


def _device(device: str) -> torch.device:
    if device not in ("cpu", "cuda"):
        raise RuntimeUnavailable(f"the eager runtime runs on cpu and cuda, not on {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailable(
            f"torch {torch.__version__} finds no CUDA device: install a CUDA build of torch and a driver, "
            "or ask for device 'cpu'"
        )
    return torch.device(device)


def _halve(module: torch.nn.Module) -> None:
    """Weights of products in float16, so that autocast has nothing to convert at each run."""
    for part in module.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            part.half()


def _moved(spec: GraphSpec, device: torch.device) -> GraphSpec:
    if device.type != "cpu":
        for module in spec.module.modules():
            for name, value in [
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ]:
                if not value.is_meta:
                    moved = value.data.to(device)
                    if isinstance(value, torch.nn.Parameter):
                        setattr(module, name, torch.nn.Parameter(moved, requires_grad=False))
                    else:
                        module._buffers[name] = moved
    return spec
