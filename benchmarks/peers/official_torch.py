"""transformers' `Sam3Model` with random weights, cut into the parts that `official_session` times."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from official_session import TOKENS, inputs
from transformers import Sam3Config, Sam3Model

Calls = dict[str, Callable[[], object]]


def peer_model(side: int) -> Any:
    """The model, for pictures of `side` pixels."""
    config = Sam3Config()
    config.vision_config.backbone_config.image_size = side
    config.vision_config.image_size = side
    torch.manual_seed(0)
    return Sam3Model(config).eval()


def whole_calls(side: int, dtype: str, compiled: bool) -> Calls:
    """Calls of "image", "text" and "detect", each with what the ones before gave."""
    model = peer_model(side).to(getattr(torch, dtype))
    encode, text, detect = _compiled(
        (model.get_vision_features, model.get_text_features, model.forward), compiled
    )
    pixels, ids = (torch.from_numpy(value) for value in inputs(side))
    given, mask = pixels.to(model.dtype), torch.ones_like(ids)
    kept: dict[str, Any] = {}

    def keep(name: str, call: Callable[[], Any]) -> Callable[[], None]:
        return _quiet(lambda: kept.__setitem__(name, call()))

    return {
        "image": keep("image", lambda: encode(given)),
        "text": keep("text", lambda: text(input_ids=ids, attention_mask=mask, return_dict=True)),
        "detect": _quiet(
            lambda: detect(vision_embeds=kept["image"], text_embeds=kept["text"], attention_mask=mask)
        ),
    }


def block_calls(side: int, dtype: str, compiled: bool) -> tuple[Calls, dict[str, int]]:
    """The image encoder by block, for pictures on which the whole takes long; "text" and "detect" whole.

    Returns:
        The calls, on random values of the right shapes, and how often the encoder runs each block.
    """
    model = peer_model(side).to(getattr(torch, dtype))
    vit, neck = model.vision_encoder.backbone, model.vision_encoder.neck
    grid, width = side // vit.config.patch_size, vit.config.hidden_size
    wide = list(vit.config.global_attn_indexes)
    narrow = next(n for n in range(len(vit.layers)) if n not in wide)
    pixels, ids = (torch.from_numpy(value) for value in inputs(side))
    given, mask = pixels.to(model.dtype), torch.ones_like(ids)
    tokens = torch.randn(1, grid, grid, width).to(model.dtype)
    plane = tokens.permute(0, 3, 1, 2).contiguous()
    parts = (vit.embeddings, vit.layers[narrow], vit.layers[wide[0]], neck)
    patches, window, whole, pyramid, text, detect = _compiled(
        (*parts, model.get_text_features, model.forward), compiled
    )
    with torch.inference_mode():
        maps, places = neck(plane)
        told = model.get_text_features(input_ids=ids, attention_mask=mask, return_dict=True)
    image = _encoded(maps, places)
    calls = {
        "patches": lambda: patches(given),
        "window block": lambda: window(tokens),
        "global block": lambda: whole(tokens),
        "neck": lambda: pyramid(plane),
        "text": lambda: text(input_ids=ids, attention_mask=mask, return_dict=True),
        "detect": lambda: detect(vision_embeds=image, text_embeds=told, attention_mask=mask),
    }
    counts = {"patches": 1, "window block": len(vit.layers) - len(wide), "global block": len(wide), "neck": 1}
    return {name: _quiet(call) for name, call in calls.items()}, counts


class Image(torch.nn.Module):
    """pixel_values -> the three finest maps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model.get_vision_features(pixel_values).fpn_hidden_states[:3])


class Text(torch.nn.Module):
    """input_ids -> text features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(input_ids)
        found = self.model.get_text_features(input_ids=input_ids, attention_mask=mask, return_dict=True)
        features: torch.Tensor = found.pooler_output
        return features


class Detect(torch.nn.Module):
    """Maps and text features -> masks, boxes, logits, presence."""

    def __init__(self, model: Any, places: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.model, self.places = model, places

    def forward(
        self, fpn_4x: torch.Tensor, fpn_2x: torch.Tensor, fpn_1x: torch.Tensor, text_features: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        found = self.model(
            vision_embeds=_encoded((fpn_4x, fpn_2x, fpn_1x, None), self.places),
            text_embeds=SimpleNamespace(pooler_output=text_features),
            attention_mask=torch.ones(text_features.shape[:2], dtype=torch.int64),
        )
        return found.pred_masks, found.pred_boxes, found.pred_logits, found.presence_logits


def example_parts(side: int) -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    """The parts as modules with plain tensors in and out, and an example of their inputs."""
    model = peer_model(side)
    grid, width = side // 14, 256
    pixels, ids = (torch.from_numpy(value) for value in inputs(side))
    maps = tuple(torch.randn(1, width, scale * grid, scale * grid) for scale in (4, 2, 1))
    sine = model.vision_encoder.neck.position_encoding
    places = (*(sine(one.shape, one.device, one.dtype) for one in maps), None)
    return {
        "image": (Image(model), (pixels,)),
        "text": (Text(model), (ids,)),
        "detect": (Detect(model, places), (*maps, torch.randn(1, TOKENS, width))),
    }


def _encoded(maps: Any, places: Any) -> SimpleNamespace:
    """What `Sam3Model.forward` reads of an encoded picture."""
    return SimpleNamespace(
        fpn_hidden_states=maps, fpn_position_encoding=places, hidden_states=None, attentions=None
    )


def _compiled(calls: tuple[Any, ...], compiled: bool) -> tuple[Any, ...]:
    return tuple(torch.compile(one, dynamic=False) for one in calls) if compiled else calls


def _quiet(call: Callable[[], object]) -> Callable[[], None]:
    def called() -> None:
        with torch.inference_mode():
            call()

    return called
