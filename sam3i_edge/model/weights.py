"""A model's weights on disk: `model.json` with its sizes, and one safetensors file a group of levels.

Opened by mapping, so that a model, or the part of it that one graph needs, is in memory once; written one
tensor at a time where a model may be larger than memory.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sam3i_edge.errors import ArtifactError
from sam3i_edge.files import whole_file, write_whole
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.folding import site_gates, unfold, with_constants
from sam3i_edge.model.sam3i import SAM3I, adapter_of

CONFIG_FILE = "model.json"
# The groups that each weights file holds. `complex` needs bridge and complex, and nothing of simple.
WEIGHT_FILES: Mapping[str, tuple[str, ...]] = {
    "base": ("base",),
    "simple": ("simple",),
    "complex": ("bridge", "complex"),
}

# Parameters that a graph reads, by the beginning of their names.
_GRAPH_PARTS = {
    "image_encoder": ("image_encoder.", "geometry_encoder."),
    "text_encoder": ("text_encoder.",),
    "box_encoder": ("geometry_encoder.",),
    "detector": ("detector.",),
}
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_STORED = {True: ("I8", 1), False: ("F32", 4)}
_MADV_PAGEOUT = 21  # linux/mman.h, since 5.4; loses nothing, whatever the memory is


@contextmanager
def no_parameter_storage() -> Iterator[None]:
    """Modules made in this block have parameters on the meta device and buffers with their values."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def build_model(config: ModelConfig, tensors: Mapping[str, Tensor]) -> SAM3I:
    """A model whose parameters are these tensors, not copies; what is missing stays on the meta device.

    Args:
        config: sizes.
        tensors: our name -> float32 tensor.

    Raises:
        ArtifactError: a tensor has another shape than these sizes ask for.
    """
    with no_parameter_storage():
        model = with_constants(SAM3I(config), tensors)
    for name, value in model.state_dict().items():
        if name in tensors and tensors[name].shape != value.shape:
            raise ArtifactError(
                f"the tensor {name} is {list(tensors[name].shape)}, and the sizes of {CONFIG_FILE} ask for "
                f"{list(value.shape)}: the two belong to different models"
            )
    model.load_state_dict(dict(tensors), strict=False, assign=True)
    return model.requires_grad_(False).eval()


def part_of(name: str, graph: str | None) -> bool:
    """Whether a graph reads the parameter, or layer, of this name; None reads everything."""
    return graph is None or name.startswith(_GRAPH_PARTS[graph.split(".")[0]])


def open_weights(folder: Path, graph: str | None = None) -> dict[str, Tensor]:
    """The tensors of `folder`/*.safetensors, mapped from the files: values are read when used.

    float16 is read at once, as float32.

    Args:
        folder: of the weights.
        graph: only what this graph reads; None for everything.

    Raises:
        ArtifactError: there is no weights file, or one is damaged.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ArtifactError(f"{folder} holds no weights")
    tensors = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (no mapping)
                    if part_of(name, graph):
                        value = file.get_tensor(name)
                        tensors[name] = value.float() if value.dtype == torch.float16 else value
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from error
    return tensors


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that are no numbers; a file's pages are given back.

    Raises:
        ArtifactError: a tensor holds NaN or an infinity; the first is named.
    """
    for name, value in tensors.items():
        if value.numel() and not all(map(math.isfinite, value.aminmax())):
            raise ArtifactError(
                f"the tensor {name} holds NaN or an infinity: its training failed, or its file is damaged; "
                "take an earlier checkpoint"
            )
        _release(value)


def load_model(folder: Path) -> SAM3I:
    """Opens what training or a conversion wrote: `model.json` and `*.safetensors`.

    Raises:
        ArtifactError: a file is missing or damaged, or does not fit.
    """
    model = build_model(read_config(folder), open_weights(folder))
    missing = sorted(name for name, value in model.state_dict().items() if value.is_meta)
    if missing:
        raise ArtifactError(f"{folder} lacks {len(missing)} tensors, the first is {missing[0]}")
    return model


def load_weights(model: SAM3I, folder: Path) -> None:
    """Copies what `save_weights` wrote into a model: the base, and the adapters that have a file.

    Adapters that `convert` made constants become adapters again.

    Raises:
        ArtifactError: `base.safetensors` is missing, or a file is damaged or does not fit the model.
    """
    wanted, gates = model.state_dict(), site_gates(model)
    for name, groups in WEIGHT_FILES.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            if name == "base":
                raise ArtifactError(f"{path} is missing; train the base first, or correct start")
            continue
        try:
            part = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from error
        part = unfold(part, wanted, gates)
        expected = {key: value.shape for key, value in wanted.items() if group_of(key) in groups}
        wrong = sorted(
            key
            for key in expected.keys() | part.keys()
            if key not in part or part[key].shape != expected.get(key)
        )
        if wrong:
            raise ArtifactError(
                f"{path} does not fit this model: {len(wrong)} tensors differ, the first is {wrong[0]}"
            )
        model.load_state_dict(part, strict=False)


def save_weights(model: SAM3I, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Writes one file a group of levels, with the names of `SAM3I.state_dict`, and the model's sizes.

    Args:
        model: any; without adapters only `base.safetensors` is written.
        folder: created when missing.
        state: whole tensors, where the model holds a part of each.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = model.state_dict() if state is None else state
    state = {name: value.detach().cpu().contiguous() for name, value in kept.items()}
    for name, groups in WEIGHT_FILES.items():
        part = {key: value for key, value in state.items() if group_of(key) in groups}
        if part:
            _save(part, folder / f"{name}.safetensors")
    write_config(folder, model.config)


def _save(part: dict[str, Tensor], path: Path) -> None:
    with whole_file(path) as temporary:
        try:
            save_file(part, temporary)
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error


def halve_weights(folder: Path) -> None:
    """Rounds the tensors of `folder`/*.safetensors to float16, in place.

    Raises:
        ArtifactError: one holds a number that float16 cannot.
        OSError: a file cannot be written.
    """
    for path in sorted(folder.glob("*.safetensors")):
        part = {name: value.half() for name, value in load_file(path).items()}
        check_finite(part)
        _save(part, path)


def group_of(name: str) -> str:
    """The group of a parameter or buffer of `SAM3I`, by its name: "base", or that of its adapter."""
    return adapter_of(name) or "base"


def read_config(folder: Path) -> ModelConfig:
    """The sizes in `folder`/model.json.

    Raises:
        ArtifactError: there is none, or it holds something else.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}, want an object of sizes")
        return ModelConfig.from_dict(values)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} does not hold a model's sizes: {error}") from error


def write_config(folder: Path, config: ModelConfig) -> None:
    """Writes `folder`/model.json."""
    write_whole(folder / CONFIG_FILE, json.dumps(config.to_dict(), indent=2) + "\n")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes float32 and int8 tensors as safetensors, holding one of them at a time.

    The library's own writer takes all tensors at once, which for half precision or a mapped file means the
    whole model in memory. Source: the format's specification (huggingface/safetensors, README).

    Args:
        path: file to write.
        tensors: name -> tensor of int8, which stays that, or of any float type; float32 keeps its bits.
            int8 ones come last in the file, so that all others are aligned.

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
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, value in ordered:
            stored = value if value.dtype == torch.int8 else value.to(torch.float32)
            file.write(stored.detach().contiguous().numpy().reshape(-1).view(np.uint8).data)
            _release(value)


def _release(tensor: Tensor) -> None:
    """Tells Linux that a tensor's pages may leave memory; a mapped file's are read again when needed."""
    if _LIBC is None or not tensor.numel():
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    length = (tensor.data_ptr() + tensor.nbytes - start) // page * page
    if length > 0:
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_PAGEOUT)
