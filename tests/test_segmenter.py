import copy
import dataclasses
import pickle
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest

from made_segmenter import picture, same
from sam3i_edge import Result, Segmenter
from sam3i_edge.bundle import folder
from sam3i_edge.bundle.folder import UnknownModel
from sam3i_edge.devices.profiles import UnknownDevice
from sam3i_edge.errors import ArtifactError, ImageError, InstructionError, RuntimeUnavailable
from sam3i_edge.levels import LEVELS
from sam3i_edge.masks.iou import mask_iou
from sam3i_edge.pipeline import instruction
from sam3i_edge.pipeline.graphs import Graphs
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.pipeline.timing import STEPS


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected(bundle, image, text, level):
    """The tiny graphs' result, from their formulas."""
    with TemporaryDirectory() as folder:  # an export may have linked the bundle's files, which onnx refuses
        root = shutil.copytree(bundle.root / "onnx-fp32", Path(folder) / "graphs")
        weights = {
            name: {
                t.name: onnx.numpy_helper.to_array(t)
                for t in onnx.load(root / f"{name}.onnx").graph.initializer
            }
            for name in ("image_encoder", f"text_encoder.{level}", "detector")
        }
    pixels = to_pixel_values(image, 32, (0.5,) * 3, (0.5,) * 3)[0]
    patches = pixels.reshape(3, 8, 4, 8, 4)
    fpn_4x = np.einsum("oikl,iykxl->oyx", weights["image_encoder"]["w"], patches)
    fpn_2x = fpn_4x.reshape(8, 4, 2, 4, 2).mean((2, 4))
    fpn_1x = fpn_2x.reshape(8, 2, 2, 2, 2).mean((2, 4))
    ids = bundle.tokenizer().encode(text).ids
    features = weights[f"text_encoder.{level}"]["table"][ids]
    detector = weights["detector"]
    # The 32 text slots without padding, then the geometry token, which is never masked.
    p = features[ids != 0].sum(0) + fpn_1x.mean((1, 2)) + detector["level_table"][LEVELS.index(level)]
    q = detector["queries"] * p
    scores = sigmoid(q.mean(1) + fpn_2x.mean())
    order = np.argsort(-scores)
    return {
        "scores": scores[order],
        "boxes": detector["corners"][order] * np.array([60, 40, 60, 40]),
        "mask_logits": (q[order] @ fpn_4x.reshape(8, 64)).reshape(4, 8, 8),
        "presence": sigmoid(p.mean() + fpn_1x.mean()),
    }


@pytest.mark.parametrize("level", LEVELS)
def test_the_graphs_are_fed_as_the_design_says(tiny_bundle, segmenter, level):
    result = segmenter.segment(picture(0), "the red star", level=level)
    want = expected(tiny_bundle, picture(0), "the red star", level)
    for name in ("scores", "boxes", "mask_logits"):
        np.testing.assert_allclose(getattr(result, name), want[name], rtol=1e-4, atol=1e-4)
    assert result.presence == pytest.approx(want["presence"], abs=1e-5)


def test_result_says_where_it_comes_from(segmenter):
    result = segmenter.segment(picture(0), "  The red STAR ")
    assert isinstance(result, Result)
    assert (result.model, result.device, result.runtime, result.precision) == (
        "tiny",
        "cpu",
        "onnxruntime",
        "fp32",
    )
    assert (result.level, result.level_chosen_by) == ("simple", "auto")
    assert result.instruction == "  The red STAR "
    assert result.image_size == (40, 60)
    assert result.truncated
    assert result.tokens_cut == 0
    assert result.threshold == 0.0
    assert np.array_equal(result.image, picture(0))


def test_the_caller_chooses_the_level(segmenter):
    results = [segmenter.segment(picture(0), "star", level=level) for level in LEVELS]
    assert [(r.level, r.level_chosen_by) for r in results] == [(level, "caller") for level in LEVELS]
    assert len({r.presence for r in results}) == 3


def test_a_long_instruction_is_cut_and_told(segmenter):
    result = segmenter.segment(picture(0), "the red star " * 40)
    assert result.tokens_cut > 30
    assert segmenter.segment(picture(0), "the red star " * 41).presence == result.presence


def test_threshold_of_call_segmenter_and_bundle(tiny_bundle, segmenter):
    scores = segmenter.segment(picture(0), "star").scores
    assert len(scores) == 4
    middle = float(scores[1:3].mean())
    assert len(segmenter.segment(picture(0), "star", threshold=middle)) == 2
    assert len(segmenter.segment(picture(0), "star", threshold=1.0)) == 0
    with Segmenter(tiny_bundle.root, threads=1, threshold=middle) as other:
        assert len(other.segment(picture(0), "star")) == 2
        assert other.info.threshold == middle
    with Segmenter(tiny_bundle.root, threads=1) as other:
        assert other.info.threshold == 0.5
        assert len(other.segment(picture(0), "star")) == int((scores > 0.5).sum())


def test_scene_and_stream_give_what_segment_gives(segmenter):
    wanted = [segmenter.segment(picture(seed), "every star") for seed in range(3)]
    assert same(segmenter.encode(picture(1)).segment("every star"), wanted[1])
    streamed = list(segmenter.stream((picture(seed) for seed in range(3)), "every star"))
    assert all(same(got, want) for got, want in zip(streamed, wanted, strict=True))


def test_a_list_of_instructions_gives_a_list_and_encodes_the_image_once(segmenter, runs):
    texts = ["star", "the red star left of the ring", "star"]
    wanted = [segmenter.segment(picture(1), text) for text in texts]
    runs.clear()
    results = segmenter.segment(picture(0), texts)
    assert runs == ["image_encoder", *["detector"] * 3]
    assert [result.instruction for result in results] == texts
    scene = segmenter.encode(picture(1))
    for asked in (scene.segment(texts), segmenter.segment(picture(1), tuple(texts))):
        assert isinstance(asked, list)
        assert all(same(got, want) for got, want in zip(asked, wanted, strict=True))
    assert segmenter.segment(picture(0), []) == scene.segment([]) == []
    alone = segmenter.segment(picture(0), ["star"])
    assert isinstance(alone, list)
    assert len(alone) == 1


def test_the_image_counts_for_the_first_of_a_list(segmenter):
    first, second = (one.timings_ms for one in segmenter.segment(picture(0), ["star", "ring"]))
    assert min(first[step] for step in ("preprocess", "encode_image", "detect")) > 0
    assert (second["preprocess"], second["encode_image"]) == (0.0, 0.0)
    assert min(second[step] for step in ("encode_text", "detect")) > 0


def test_level_and_threshold_hold_for_each_of_a_list(segmenter):
    for result in segmenter.segment(picture(0), ["star", "ring"], level="complex", threshold=0.25):
        assert (result.level, result.level_chosen_by, result.threshold) == ("complex", "caller", 0.25)


def test_arrays_of_opencv_are_turned_around(segmenter):
    want = segmenter.segment(picture(0), "star")
    turned = np.ascontiguousarray(picture(0)[..., ::-1])
    got = segmenter.segment(turned, "star", bgr=True)
    assert same(got, want)
    assert np.array_equal(got.image, picture(0))
    assert same(segmenter.encode(turned, bgr=True).segment("star"), want)
    assert same(next(segmenter.stream([turned], "star", bgr=True)), want)
    assert not same(segmenter.segment(turned, "star"), want)


def test_repr_says_what_runs(segmenter):
    assert repr(segmenter) == "<Segmenter tiny: cpu, onnxruntime, fp32>"


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_another_process_makes_its_own(segmenter, copied):
    with pytest.raises(TypeError, match=r"cannot be pickled.*: make one in each process, as Segmenter\('/"):
        copied(segmenter)
    with pytest.raises(TypeError, match=r"a Scene cannot be pickled.*: send its image"):
        copied(segmenter.encode(picture(0)))


@pytest.mark.parametrize("threads", [0, 1025, 99_999_999])
def test_absurd_threads_are_refused_before_the_model_is_looked_for(threads):
    with pytest.raises(ValueError, match=f"threads must be 1 to 1,024, got {threads:,}"):
        Segmenter("no-such-model", threads=threads)


def test_overlapping_instances_are_dropped_when_asked(segmenter):
    every = segmenter.segment(picture(0), "star")
    iou = mask_iou(every.mask_logits > 0, every.mask_logits > 0)
    most = float(iou[0, 1:].max()) - 1e-6
    kept = [n for n in range(len(every)) if n == 0 or iou[0, n] <= most]
    assert 0 < len(kept) < len(every)
    for found in (
        segmenter.segment(picture(0), "star", suppress=most),
        segmenter.encode(picture(0)).segment("star", suppress=most),
        next(segmenter.stream([picture(0)], "star", suppress=most)),
    ):
        assert set(found.scores.tolist()) <= set(every.scores[kept].tolist())
        assert found.scores[0] == every.scores[0]
    assert same(segmenter.segment(picture(0), "star", suppress=1.0), every)
    for wrong in (-1, 2, float("nan")):
        with pytest.raises(ValueError, match="suppress must be a mask IoU, 0 to 1"):
            segmenter.segment(picture(0), "star", suppress=wrong)


def test_an_instruction_is_cleaned_once(segmenter, monkeypatch):
    cleaned = []
    clean = instruction.clean
    monkeypatch.setattr(instruction, "clean", lambda text: cleaned.append(text) or clean(text))
    segmenter.segment(picture(0), "  RED &amp;amp; star ")
    assert cleaned == ["  RED &amp;amp; star "]


def test_the_hub_is_asked_as_the_caller_says(tiny_bundle, monkeypatch):
    asked = []

    def fetch(name, *_, **options):
        asked.append((name, options))
        return tiny_bundle.root

    monkeypatch.setattr(folder, "fetch", fetch)
    Segmenter("some/model", revision="v1", token="hf_x", offline=True, threads=1).close()
    Segmenter("some/model", threads=1).close()
    assert asked == [
        ("some/model", {"revision": "v1", "token": "hf_x", "offline": True}),
        ("some/model", {"revision": None, "token": None, "offline": False}),
    ]


def test_timings(segmenter):
    first = segmenter.segment(picture(0), "star").timings_ms
    assert tuple(first) == STEPS
    assert first["encode_boxes"] == 0.0
    assert all(value > 0 for step, value in first.items() if step != "encode_boxes")
    assert sum(first.values()) - first["total"] <= first["total"]
    again = segmenter.segment(picture(0), "star").timings_ms
    assert (again["encode_image"], again["encode_text"]) == (0.0, 0.0)
    assert min(again[step] for step in ("preprocess", "detect", "postprocess", "total")) > 0
    scene = segmenter.encode(picture(7)).segment("ring").timings_ms
    assert (scene["preprocess"], scene["encode_image"]) == (0.0, 0.0)
    assert scene["encode_text"] > 0


def test_stream_checks_at_the_call_and_reads_frame_by_frame(segmenter):
    with pytest.raises(InstructionError, match="empty"):
        segmenter.stream([], " ")
    with pytest.raises(ValueError, match="unknown level 'hard'"):
        segmenter.stream([], "star", level="hard")
    read = []
    frames = (read.append(seed) or picture(seed) for seed in range(5))
    results = segmenter.stream(frames, "star")
    assert read == []
    next(results)
    assert read == [0]


def test_info(tiny_bundle, segmenter):
    info = segmenter.info
    assert (info.model, info.bundle, info.variant) == ("tiny", tiny_bundle.root, "onnx-fp32")
    assert (info.device, info.runtime, info.precision, info.image_size) == ("cpu", "onnxruntime", "fp32", 32)
    assert info.max_boxes == 0
    assert "chosen by auto" in info.reason
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.device = "cuda"


def test_closed_segmenter_refuses(tiny_bundle):
    with Segmenter(tiny_bundle.root, threads=1) as segmenter:
        scene = segmenter.encode(picture(0))
        frames = segmenter.stream([picture(0)], "star")
    segmenter.close()
    for ask in (
        lambda: segmenter.segment(picture(0), "star"),
        lambda: segmenter.encode(picture(0)),
        lambda: segmenter.stream([], "star"),
        lambda: scene.segment("star"),
        lambda: next(frames),
    ):
        with pytest.raises(RuntimeUnavailable, match="this Segmenter was closed"):
            ask()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "nope"}, UnknownModel, "unknown model 'nope'"),
        ({"device": "tpu"}, UnknownDevice, "unknown device 'tpu'"),
        ({"device": "jetson"}, RuntimeUnavailable, "device 'jetson' is not on this machine"),
        ({"precision": "int8"}, ArtifactError, "no variant for onnxruntime .*at int8"),
        ({"runtime": "tflite"}, RuntimeUnavailable, "unknown runtime 'tflite'"),
        ({"threshold": 1.5}, ValueError, "threshold must be 0 to 1, got 1.5"),
        ({"threshold": float("nan")}, ValueError, "threshold must be 0 to 1, got nan"),
        ({"threads": 0}, ValueError, "threads must be 1 to 1,024, got 0"),
        ({"compile": True}, ValueError, "compile is for runtime 'eager', and this is 'onnxruntime'"),
        ({"image_cache": -1}, ValueError, "size must be at least 0, got -1"),
        ({"instruction_cache": -1}, ValueError, "size must be at least 0, got -1"),
    ],
)
def test_wrong_arguments(tiny_bundle, arguments, error, message):
    with pytest.raises(error, match=message):
        Segmenter(**{"model": tiny_bundle.root, **arguments})


@pytest.mark.parametrize(
    ("image", "instruction", "options", "error", "message"),
    [
        ("/no/such.png", "star", {}, ImageError, "no image at"),
        (np.full((8, 8, 3), np.nan), "star", {}, ImageError, "NaN"),
        (np.zeros((0, 8, 3), np.uint8), "star", {}, ImageError, "nothing to segment"),
        (picture(0), "", {}, InstructionError, "empty"),
        (picture(0), "word " * 10_000, {}, InstructionError, "at most"),
        (picture(0), "star", {"level": "hard"}, ValueError, "unknown level"),
        (picture(0), "star", {"threshold": -0.1}, ValueError, "threshold must be 0 to 1"),
        (3, "star", {}, TypeError, "an image must be"),
        (picture(0), 3, {}, TypeError, "must be a string"),
        (picture(0), b"star", {}, TypeError, "must be a string, got bytes"),
        ("a.png", "star", {"bgr": True}, TypeError, "bgr=True is for arrays .* got str"),
    ],
    ids=range(11),
)
def test_bad_input_is_refused_and_the_next_call_works(segmenter, image, instruction, options, error, message):
    with pytest.raises(error, match=message):
        segmenter.segment(image, instruction, **options)
    assert len(segmenter.segment(picture(0), "star")) == 4


def test_a_damaged_bundle_is_refused_before_a_graph_is_opened(tiny_bundle, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_bundle.root, tmp_path / "copy")
    data = copy / "onnx-fp32" / "text_encoder.complex.data"
    data.write_bytes(b"\x00" + data.read_bytes()[1:])
    monkeypatch.setattr(Graphs, "open", lambda *_: pytest.fail("a graph was opened"))
    with pytest.raises(ArtifactError, match=r"text_encoder\.complex\.data was changed"):
        Segmenter(copy)


def test_graphs_that_do_not_fit_each_other(tiny_bundle, tmp_path):
    from sam3i_edge.bundle.folder import Bundle
    from sam3i_edge.bundle.writing import new_bundle

    manifest = tiny_bundle.manifest
    graphs = manifest.variants["onnx-fp32"].graphs
    swapped = {**graphs, "detector": graphs["image_encoder"]}
    variant = manifest.variants["onnx-fp32"].model_copy(update={"graphs": swapped})
    with new_bundle(tmp_path / "swapped", base=tiny_bundle) as made:
        made.finish(variants={"onnx-fp32": variant})
    with (
        Segmenter(Bundle.open(tmp_path / "swapped").root, threads=1) as segmenter,
        pytest.raises(ArtifactError, match=r"graphs do not fit together: .* wants the inputs pixel_values"),
    ):
        segmenter.segment(picture(0), "star")
