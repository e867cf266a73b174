"""A model, or the part of it that one graph needs, from weight files, without a second copy in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.folding import with_constants
from sam3i_edge.model.sam3i import SAM3I

# Parameters that a graph reads, by the beginning of their names.
_GRAPH_PARTS = {
    "image_encoder": ("image_encoder.", "geometry_encoder."),
    "text_encoder": ("text_encoder.",),
    "box_encoder": ("geometry_encoder.",),
    "detector": ("detector.",),
}


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


def build_model(config: ModelConfig, tensors: Mapping[str, torch.Tensor]) -> SAM3I:
    """A model whose parameters are these tensors, not copies; what is missing stays on the meta device.

    Args:
        config: sizes.
        tensors: our name -> float32 tensor of the right shape.
    """
    with no_parameter_storage():
        model = with_constants(SAM3I(config), tensors)
    model.load_state_dict(dict(tensors), strict=False, assign=True)
    return model.requires_grad_(False).eval()


def part_of(name: str, graph: str | None) -> bool:
    """Whether a graph reads the parameter, or layer, of this name; None reads everything."""
    return graph is None or name.startswith(_GRAPH_PARTS[graph.split(".")[0]])


def open_weights(folder: Path, graph: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of `folder`/*.safetensors, mapped from the files: values are read when used.

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
                        tensors[name] = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}") from error
    return tensors
