"""Parity with the released SAM3-I code at all three levels; and every known mistake is caught."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
import official

from sam3i_edge.levels import LEVELS
from sam3i_edge.model.attention import padding_bias
from sam3i_edge.model.sam3i import SAM3I, join_prompt
from sam3i_edge.model.text_encoder import TextEncoder
from sam3i_edge.pipeline.postprocess import resize_mask_logits


@pytest.fixture
def model() -> SAM3I:
    return official.build()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("boxes", [False, True], ids=["text", "boxes"])
def test_matches_the_official_outputs(model: SAM3I, level: str, boxes: bool) -> None:
    official.assert_parity(official.errors(model, level, boxes=boxes))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("boxes", [False, True], ids=["text", "boxes"])
def test_boxes_scores_masks_and_kept_queries(model: SAM3I, level: str, boxes: bool) -> None:
    _, out = official.predict(model, level, boxes=boxes)
    want = official.arrays("outputs")
    size = official.arrays("inputs")["image_uint8"].shape[:2]
    scores = out.logits[-1].sigmoid() * out.presence[-1].sigmoid()[:, None]
    for row, name in enumerate(("box",) if boxes else ("p0", "p1", "p2")):
        case = f"{level}.{name}"
        kept = np.flatnonzero(scores[row].numpy() > 0.443)
        assert kept.tolist() == want[f"{case}.post.query_index"].tolist()
        np.testing.assert_allclose(
            scores[row].numpy()[kept], want[f"{case}.post.scores"], rtol=0, atol=official.SCORES
        )
        np.testing.assert_allclose(
            out.boxes[-1, row].numpy(), want[f"{case}.pred_boxes_cxcywh"], rtol=0, atol=official.BOXES
        )
        masks = resize_mask_logits(out.mask_logits[row].numpy()[kept], size).reshape(len(kept), -1)
        packed = want[f"{case}.post.masks_packed"]
        assert np.mean(masks != np.unpackbits(packed, axis=1, count=masks.shape[1])) <= 1e-4


def test_exported_detector_gives_the_same_best_queries(model: SAM3I) -> None:
    """`forward` (K best, masks after the choice) against `predict` (all queries)."""
    given = official.inputs()
    ids = given["token_ids"][:1]
    with torch.no_grad():
        maps = model.image_encoder(given["pixel_values"])
        level = torch.tensor([LEVELS.index("simple")])
        prompt, mask = join_prompt(model.encode_text(ids, level), ids, model.geometry_encoder(maps[-1]))
        scores, boxes, masks, presence = model.detector(*maps, prompt, mask, level)
        out = model.detector.predict(*maps, prompt, mask, level)
    every = out.logits[-1].sigmoid() * out.presence[-1].sigmoid()[:, None]
    order = every[0].argsort(descending=True)
    assert scores.shape == (1, 20)
    torch.testing.assert_close(scores[0], every[0, order])
    torch.testing.assert_close(masks[0], out.mask_logits[0, order], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close((boxes[0, :, :2] + boxes[0, :, 2:]) / 2, out.boxes[-1, 0, order, :2])
    torch.testing.assert_close(presence[0], out.presence[-1])


@pytest.mark.parametrize("checkpoint", ["sam3i_stage3.pt", "sam3_base.pt"])
def test_concept_is_bit_identical_with_and_without_adapters(model: SAM3I, checkpoint: str) -> None:
    from dataclasses import replace

    plain = SAM3I(replace(official.config(), adapter_dim=0)).eval()
    base = {k: v for k, v in official.load(checkpoint).tensors.items() if k in plain.state_dict()}
    plain.load_state_dict(base)
    encoded, out = official.predict(model, "concept")
    bare_encoded, bare = official.predict(plain, "concept")
    for name, value in encoded.items():
        assert torch.equal(value, bare_encoded[name]), name
    for name in ("logits", "boxes", "presence", "mask_logits", "semantic_logits", "queries", "fused"):
        assert torch.equal(getattr(out, name), getattr(bare, name)), name


def test_levels_can_be_mixed_in_a_batch(model: SAM3I) -> None:
    given = official.inputs()
    ids = given["token_ids"][:1].expand(3, -1)
    with torch.no_grad():
        mixed = model(given["pixel_values"], ids, torch.tensor([2, 0, 1]), torch.zeros(3, dtype=torch.int64))
        for row, level in enumerate((2, 0, 1)):
            alone = model(given["pixel_values"], ids[:1], torch.tensor([level]))
            torch.testing.assert_close(mixed.logits[:, row], alone.logits[:, 0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(mixed.mask_logits[row], alone.mask_logits[0], rtol=1e-5, atol=1e-3)


# Each mistake below is one that the fixture's README lists; made on purpose, it must break parity.


def _simple_adapter_for_bridge(model: SAM3I) -> None:
    for layer in model.text_encoder.layers:
        layer.adapter.bridge.load_state_dict(layer.adapter.simple.state_dict())


def _no_inner_skip_in_fusion(model: SAM3I) -> None:
    for layer in model.detector.fusion_encoder.layers:
        layer.adapter.gates[2] = torch.tensor([0.0, 1.0])


def _inner_skip_in_decoder(model: SAM3I) -> None:
    for layer in model.detector.decoder.layers:
        layer.adapter.gates[2] = torch.tensor([1.0, 1.0])


def _base_mask_embedder(model: SAM3I) -> None:
    model.copy_mask_embedder()


def _vit_epsilon_of_transformers(model: SAM3I) -> None:
    for module in model.image_encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6


MISTAKES: dict[str, tuple[Callable[[SAM3I], None], str, str]] = {
    "simple text adapter where bridge belongs": (_simple_adapter_for_bridge, "complex", "text_features"),
    "fusion adapter of complex without its inner skip": (
        _no_inner_skip_in_fusion,
        "complex",
        "fusion_output",
    ),
    "inner skip in the decoder adapter of complex": (_inner_skip_in_decoder, "complex", "queries"),
    "base mask embedder for simple": (_base_mask_embedder, "simple", "pred_masks"),
    "base mask embedder for complex": (_base_mask_embedder, "complex", "pred_masks"),
    "ViT epsilon 1e-6": (_vit_epsilon_of_transformers, "concept", "fpn0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_the_weights_is_caught(model: SAM3I, mistake: str) -> None:
    make, level, array = MISTAKES[mistake]
    make(model)
    with pytest.raises(AssertionError, match=array):
        official.assert_parity(official.errors(model, level))


@pytest.mark.parametrize("level", LEVELS)
def test_leaving_the_cls_token_out_is_caught(model: SAM3I, level: str) -> None:
    given = official.inputs()
    ids, index = given["token_ids"], torch.full((3,), LEVELS.index(level))
    with torch.no_grad():
        encoded, _ = official.predict(model, level)
        maps = model.image_encoder(given["pixel_values"])
        out = model.detector.predict(
            *maps, encoded["text"], ids != 0, index, torch.zeros(3, dtype=torch.int64)
        )
    with pytest.raises(AssertionError, match="pred_logits"):
        official.assert_parity(official.compare(encoded, out, level))


@pytest.mark.parametrize("level", ["simple", "complex"])
def test_padding_mask_inside_the_text_tower_is_caught(
    model: SAM3I, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def masked(self: TextEncoder, input_ids: torch.Tensor, level: str) -> torch.Tensor:
        x = self.token_embedding(input_ids) + self.position_embedding
        bias = self.causal + padding_bias(input_ids != 0)
        for layer in self.layers:
            x = layer(x, bias, level)
        return self.projection(self.final_norm(x))

    monkeypatch.setattr(TextEncoder, "forward", masked)
    with pytest.raises(AssertionError, match="text_features"):
        official.assert_parity(official.errors(model, level))


@pytest.mark.parametrize("level", ["simple", "complex"])
def test_padding_with_the_end_id_is_caught(model: SAM3I, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = TextEncoder.forward
    monkeypatch.setattr(
        TextEncoder, "forward", lambda self, ids, level: forward(self, ids.masked_fill(ids == 0, 319), level)
    )
    with pytest.raises(AssertionError, match="text_features"):
        official.assert_parity(official.errors(model, level))


def test_box_pooling_equals_a_direct_loop() -> None:
    """The separable RoIAlign against the definition: mean of bilinear samples in each bin."""
    from sam3i_edge.model.geometry_encoder import roi_weights

    size, bins = 16, 7
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size, size, generator=generator, dtype=torch.float64)
    corners = torch.rand(20, 2, 2, generator=generator, dtype=torch.float64).sort(dim=1).values * 20 - 2
    for (x0, y0), (x1, y1) in corners:
        rows, columns = roi_weights(y0, y1, bins, size), roi_weights(x0, x1, bins, size)
        got = rows @ image @ columns.T
        want = torch.zeros(bins, bins, dtype=torch.float64)
        h, w = max(float(y1 - y0), 1.0), max(float(x1 - x0), 1.0)
        ny, nx = int(np.ceil(h / bins)), int(np.ceil(w / bins))
        for i in range(bins):
            for j in range(bins):
                total = 0.0
                for a in range(ny):
                    for b in range(nx):
                        y = float(y0) + h / bins * (i + (a + 0.5) / ny)
                        x = float(x0) + w / bins * (j + (b + 0.5) / nx)
                        if not (-1 <= y <= size and -1 <= x <= size):
                            continue
                        y, x = min(max(y, 0.0), size - 1.0), min(max(x, 0.0), size - 1.0)
                        p, q = int(y), int(x)
                        r, s = min(p + 1, size - 1), min(q + 1, size - 1)
                        u, v = y - p, x - q
                        total += (1 - u) * ((1 - v) * image[p, q] + v * image[p, s]) + u * (
                            (1 - v) * image[r, q] + v * image[r, s]
                        )
                want[i, j] = total / (ny * nx)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_masked_prompt_slots_change_nothing(model: SAM3I, level: str) -> None:
    """A bundle with box slots asks by text with those slots masked, whatever they hold."""
    given = official.inputs()
    ids, index = given["token_ids"][:1], torch.tensor([LEVELS.index(level)])
    with torch.no_grad():
        maps = model.image_encoder(given["pixel_values"])
        prompt, mask = join_prompt(model.encode_text(ids, index), ids, model.geometry_encoder(maps[-1]))
        exact = model.detector(*maps, prompt, mask, index)
        slots = torch.randn(1, 8, prompt.shape[2])
        padded = torch.cat((prompt[:, :32], slots, prompt[:, 32:]), dim=1)
        padded_mask = torch.cat((mask[:, :32], torch.zeros(1, 8, dtype=torch.bool), mask[:, 32:]), dim=1)
        found = model.detector(*maps, padded, padded_mask, index)
    for got, want in zip(found, exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


def test_padded_boxes_change_nothing(model: SAM3I) -> None:
    given = official.inputs()
    boxes, labels = given["box_prompt_cxcywh"][None], given["box_prompt_labels"][None]
    with torch.no_grad():
        fpn_1x = model.image_encoder(given["pixel_values"])[-1]
        exact = model.geometry_encoder(fpn_1x, boxes, labels)
        padded = model.geometry_encoder(
            fpn_1x, functional.pad(boxes, (0, 0, 0, 3), value=0.5), functional.pad(labels, (0, 3), value=-1)
        )
    torch.testing.assert_close(padded[:, :2], exact[:, :2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded[:, -1], exact[:, -1], rtol=1e-5, atol=1e-5)
