from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sam3i_edge.errors import ExportError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.quantize.calibration import LEAST_IMAGES, Seen, calibrate, run_pairs
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import RECIPES


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_statistics_are_those_of_the_rows():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 3, generator=generator) for n in (5, 1, 20)]
    seen = Seen.of(3)
    for part in parts:
        seen.add(part)
    rows = torch.cat(parts)
    torch.testing.assert_close(seen.largest, rows.abs().amax(0))
    torch.testing.assert_close(seen.mean, rows.mean(0))
    torch.testing.assert_close(seen.mean_square, rows.square().mean(0))
    assert seen.count == 26
    assert sorted(map(tuple, seen.rows.tolist())) == sorted(map(tuple, rows.tolist()))  # so few are all kept
    factor = torch.tensor([2.0, 1.0, 0.5])
    seen.scale(factor)
    torch.testing.assert_close(seen.mean_square, (rows * factor).square().mean(0))
    torch.testing.assert_close(seen.rows.sum(0), (rows * factor).sum(0))


def test_modules_are_watched_and_left_as_they_were(model, pairs, encode, preprocessing):
    modules = RECIPES["int8"].modules(model)
    done = []
    found = calibrate(model, modules, pairs, encode, preprocessing, progress=lambda *told: done.append(told))
    assert hooks(model) == 0
    words = f"calibrating on {len(pairs)} pairs"
    assert done == [(words, number / len(pairs)) for number in range(len(pairs) + 1)]
    images = len({id(pair.image) for pair in pairs})
    assert (found.images, found.pairs) == (images, len(pairs))
    assert images < len(pairs)
    assert (
        found.outputs.keys()
        == {n for n, m in modules.items() if isinstance(m, nn.Conv2d)} & found.inputs.keys()
    )
    stem = found.inputs["image_encoder.stem.0"]
    assert (stem.calls, len(stem.largest)) == (images, 3)  # each image once
    assert found.inputs["text_encoder.layers.0.attn.q_proj"].calls == len(pairs)
    assert found.inputs["detector.decoder.layers.0.mlp.fc1"].calls == len(pairs)
    assert "text_encoder.token_embedding" in modules.keys() - found.inputs.keys()


def test_a_model_without_adapters_is_asked_at_level_concept(config, pairs, encode, preprocessing):
    plain = SAM3I(replace(config, adapter_dim=0)).eval()
    few = pairs[:3]
    assert {pair.level for pair in few} != {"concept"}
    concept = [replace(pair, level="concept") for pair in few]
    for got, want in zip(
        run_pairs(plain, few, encode, preprocessing),
        run_pairs(plain, concept, encode, preprocessing),
        strict=True,
    ):
        assert all(map(torch.equal, got, want))


def test_fewer_than_eight_images_are_refused(model, pairs, encode, preprocessing):
    modules = RECIPES["int8"].modules(model)
    shown = list(dict.fromkeys(id(pair.image) for pair in pairs))
    few = [pair for pair in pairs if id(pair.image) in shown[: LEAST_IMAGES - 1]]
    for given, count in ((few, 7), (pairs[:1] * 50, 1), ([], 0)):
        with pytest.raises(
            ExportError, match=f"calibration got {count} images in {len(given)} pairs, want at least 8"
        ):
            calibrate(model, modules, given, encode, preprocessing)
    assert hooks(model) == 0


def test_hooks_go_when_a_pair_fails(model, pairs, encode, preprocessing):
    def broken(text):
        raise RuntimeError("no tokens")

    with pytest.raises(RuntimeError, match="no tokens"):
        calibrate(model, RECIPES["int8"].modules(model), pairs, broken, preprocessing)
    assert hooks(model) == 0


def test_unreached_modules_stay_float_and_are_named(model, pairs, encode, preprocessing):
    """Without boxes nothing embeds boxes, and without complex instructions nothing runs their adapters."""
    asked = [replace(pair, level="simple") for pair in pairs]
    prepared = Prepared(model, RECIPES["int8"], asked, encode, preprocessing)
    assert set(prepared.unreached) >= {
        "geometry_encoder.boxes_direct_project",
        "geometry_encoder.boxes_pool_project",
        "text_encoder.layers.0.adapter.complex.down_proj",
        "text_encoder.layers.0.adapter.bridge.attn.q_proj",
    }
    assert "text_encoder.layers.0.adapter.simple.down_proj" not in prepared.unreached
    spec = prepared.quantize()
    assert spec.notes["unreached"] == prepared.unreached
    assert not spec.layers.keys() & set(prepared.unreached)
    for name in prepared.unreached:
        assert spec.tensors[f"{name}.weight"].dtype == torch.float32


def test_pairs_run_as_the_graphs_do(model, pairs, encode, preprocessing):
    """Scores depend on the image, the words and the level."""
    image, other = pairs[0], pairs[-1]
    asked = [
        image,
        replace(image, text="blue"),
        replace(image, level="simple"),
        replace(image, level="concept"),
    ]
    asked.append(replace(image, image=other.image))
    scores = [found[0] for found in run_pairs(model, asked, encode, preprocessing)]
    for one in range(len(scores)):
        for two in range(one):
            same = asked[one].text == asked[two].text and asked[one].level == asked[two].level
            if not same or asked[one].image is not asked[two].image:
                assert not torch.equal(scores[one], scores[two])
