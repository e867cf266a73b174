"""What the page finds against what Python finds: the same pictures, instructions and bundles."""

from __future__ import annotations

import base64
import io
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3i_edge import Segmenter
from sam3i_edge.agreement import Instances, check, compare, drawn_pairs
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.masks.outline import polygons
from sam3i_edge.web.site import Site

WEB = Path(__file__).parents[2] / "web"
ORT = WEB / "node_modules/onnxruntime-web/dist"
ASKING = Path(__file__).with_name("asking.js").read_text()


def _base64(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _ask(page, pairs, **options):
    """The page's answers to pairs, and what ran."""
    pictures = []
    for _, group in groupby(pairs, key=lambda pair: id(pair.image)):
        asked = list(group)
        pictures.append(
            {
                "png": _base64(asked[0].image),
                "questions": [
                    {
                        "text": pair.text,
                        "level": pair.level,
                        "boxes": [] if pair.boxes is None else pair.boxes.corners.tolist(),
                        "boxLabels": [] if pair.boxes is None else pair.boxes.labels.tolist(),
                    }
                    for pair in asked
                ],
            }
        )
    found = page.evaluate(
        f"(asked) => ({ASKING})(asked)", {"bundle": "/model/", "options": options, "pictures": pictures}
    )
    for answer, pair in zip(found["answers"], pairs, strict=True):
        height, width = pair.image.shape[:2]
        bits = [np.frombuffer(base64.b64decode(mask), np.uint8) for mask in answer["masks"]]
        masks = [np.unpackbits(one)[: height * width].reshape(height, width) for one in bits]
        answer["masks"] = np.array(masks, bool).reshape(-1, height, width)
    return found["answers"], found["info"]


def _python(segmenter, pairs):
    for pair in pairs:
        boxes = {} if pair.boxes is None else {
            "boxes": pair.boxes.corners, "box_labels": pair.boxes.labels
        }  # fmt: skip
        yield segmenter.segment(pair.image, pair.text, level=pair.level, **boxes)


def _instances(results):
    return [Instances(scores=one.scores, boxes=one.boxes, masks=one.masks) for one in results]


def _shown(answers):
    """The page's answers, as the gate takes them."""
    return [
        Instances(
            scores=np.array(one["scores"], np.float32),
            boxes=np.array(one["boxes"], np.float32).reshape(-1, 4),
            masks=one["masks"],
        )
        for one in answers
    ]


def _equal(answers, results):
    """fp32: counts equal, masks to the pixel, scores to 1e-5 and most to 1e-6, boxes to 5e-4 px."""
    scores, boxes = [0.0], [0.0]
    for answer, result in zip(answers, results, strict=True):
        assert len(answer["scores"]) == len(result)
        assert (answer["level"], answer["tokensCut"], answer["truncated"]) == (
            result.level, result.tokens_cut, result.truncated,
        )  # fmt: skip
        assert answer["presence"] == pytest.approx(result.presence, abs=1e-5)
        if len(result):
            scores += np.abs(np.array(answer["scores"]) - result.scores).tolist()
            boxes += np.abs(np.array(answer["boxes"]) - result.boxes).ravel().tolist()
        np.testing.assert_array_equal(answer["masks"], result.masks)
    assert max(scores) < 1e-5
    assert np.quantile(scores, 0.9) < 1e-6
    assert max(boxes) < 5e-4


@pytest.fixture
def answers(library, serve):
    """`answers(bundle, pairs, **options)`: the page's answers, and what ran."""

    def asked(bundle, pairs, **options):
        with serve(Site(bundle, [])) as server:
            return _ask(library(server), pairs, **options)

    return asked


@pytest.mark.parametrize("pictures", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_fp32_is_pythons(answers, pictures):
    drawn = drawn_pairs(5 * pictures, 3)  # five a picture
    pairs = [pair for number, pair in enumerate(drawn) if number % 5 < 2]
    found, info = answers(Bundle.open(find_bundle("sam3i-nano")), pairs)
    assert (info["precision"], info["device"]) == ("fp32", "wasm")
    assert info["threads"] >= 1
    assert info["notes"] == list(Bundle.open(find_bundle("sam3i-nano")).manifest.notes)
    with Segmenter("sam3i-nano") as segmenter:
        _equal(found, _python(segmenter, pairs))
    assert any(answer["scores"] for answer in found)


@pytest.mark.slow
def test_outlines_are_pythons(answers):
    pairs = drawn_pairs(5, 4)
    found, _ = answers(Bundle.open(find_bundle("sam3i-nano")), pairs)
    compared = 0
    for answer in found:
        for mask, parts in zip(answer["masks"], answer["polygons"], strict=True):
            for part, wanted in zip(parts, polygons(mask), strict=True):
                compared += 1
                rings = [part["exterior"], *part["holes"]]
                for ring, other in zip(rings, (wanted.exterior, *wanted.holes), strict=True):
                    assert _turned(ring) == _turned(other.tolist())
    assert compared > 0


def _turned(ring):
    """The ring from its least point on, in the direction of its lesser neighbour."""
    points = [tuple(point) for point in ring]
    at = points.index(min(points))
    on, back = points[at:] + points[:at], points[at::-1] + points[:at:-1]
    return min(on, back)


def test_boxes_go_in_as_in_python(answers, tiny_box_bundle):
    pairs = drawn_pairs(10, 5, boxes=tiny_box_bundle.manifest.variants["onnx-fp32"].boxes)
    assert any(pair.boxes is not None for pair in pairs)
    found, info = answers(tiny_box_bundle, pairs)
    assert info["maxBoxes"] == 3
    with Segmenter(tiny_box_bundle.root) as segmenter:
        _equal(found, _python(segmenter, pairs))


@pytest.mark.slow
def test_webgpu_passes_the_gate_where_there_is_an_adapter(launch, serve, tiny_bundle):
    if not (WEB / "dist/worker-webgpu.js").is_file() or not ORT.is_dir():
        pytest.skip("needs what 'make web-check' builds")
    pairs, site = drawn_pairs(10, 7), Site(tiny_bundle, [])
    names = [f"ort-wasm-simd-threaded.asyncify.{kind}" for kind in ("mjs", "wasm")]
    site.files |= {"worker-webgpu.js": WEB / "dist/worker-webgpu.js", **{name: ORT / name for name in names}}
    browser = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # a GPU made of the CPU
    try:
        with serve(site) as server, Segmenter(tiny_bundle.root) as segmenter:
            page = browser.new_page()
            page.goto(f"{server.address}LICENSES.txt")
            if not page.evaluate("async () => !!await navigator.gpu?.requestAdapter()"):
                pytest.skip("needs a WebGPU adapter")
            found, info = _ask(page, pairs, device="webgpu")
            check(compare(_instances(_python(segmenter, pairs)), _shown(found)), "fp32")
            assert info["device"] == "webgpu"
            assert _ask(page, pairs[:1])[1]["device"] == "wasm"  # "auto", beside an adapter
    finally:
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8"])
def test_int8_passes_the_gate_on_the_pages_own_outputs(answers, quantized, rough, precision):
    pairs = drawn_pairs(24, 6)
    found, info = answers(quantized.bundle, pairs, precision=precision)
    assert info["precision"] == precision
    with Segmenter(quantized.bundle.root, precision="fp32") as segmenter:
        check(compare(_instances(_python(segmenter, pairs)), _shown(found)), precision)
