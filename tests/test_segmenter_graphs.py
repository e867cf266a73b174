"""Which graphs of a model are opened, run, kept and closed, and when."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from made_segmenter import picture, same
from sam3i_edge import Segmenter
from sam3i_edge import segmenter as segmenter_module
from sam3i_edge.devices.profiles import Choice
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline import graphs
from sam3i_edge.pipeline.graphs import Graphs


def test_an_image_is_encoded_once_and_an_instruction_once(segmenter, runs):
    first = segmenter.segment(picture(0), "star")
    assert runs == ["image_encoder", "text_encoder.concept", "detector"]
    again = segmenter.segment(picture(0).copy(), " STAR")
    assert runs[3:] == ["detector"]
    assert np.array_equal(first.mask_logits, again.mask_logits)
    segmenter.segment(picture(0), "star", level="simple")
    assert runs[4:] == ["text_encoder.simple", "detector"]
    segmenter.segment(picture(0)[::-1], "star")
    assert runs[6:] == ["image_encoder", "detector"]


def test_equal_bytes_of_another_shape_are_another_image(segmenter, runs):
    segmenter.segment(picture(0, (40, 60)), "star")
    segmenter.segment(picture(0, (40, 60)).reshape(60, 40, 3), "star")
    assert runs.count("image_encoder") == 2


def test_caches_are_bounded_and_drop_the_least_recently_used(tiny_bundle, runs):
    with Segmenter(tiny_bundle.root, threads=1, image_cache=2, instruction_cache=2) as segmenter:
        for seed in (0, 1, 0, 2):  # 1 is dropped
            segmenter.segment(picture(seed), "star")
        assert runs.count("image_encoder") == 3
        segmenter.segment(picture(0), "star")
        assert runs.count("image_encoder") == 3
        segmenter.segment(picture(1), "star")
        assert runs.count("image_encoder") == 4
        for text in ("star", "ring", "star", "heart", "star"):
            segmenter.segment(picture(1), text)
        assert runs.count("text_encoder.concept") == 3
        segmenter.segment(picture(1), "ring")
        assert runs.count("text_encoder.concept") == 4


def test_without_caches_everything_runs_each_time(tiny_bundle, runs):
    with Segmenter(tiny_bundle.root, threads=1, image_cache=0, instruction_cache=0) as segmenter:
        results = [segmenter.segment(picture(0), "star") for _ in range(2)]
        assert runs == ["image_encoder", "text_encoder.concept", "detector"] * 2
        assert same(*results)
        scene = segmenter.encode(picture(0))
        scene.segment("star")
        scene.segment("star")
        assert runs.count("image_encoder") == 3


def test_text_encoders_may_be_closed_after_each_use(tiny_bundle, segmenter):
    want = [segmenter.segment(picture(0), text) for text in ("star", "ring")]
    with Segmenter(tiny_bundle.root, threads=1, threshold=0.0, keep_text_encoders=False) as closing:
        for found in (want, want[::-1]):
            got = [closing.segment(picture(0), one.instruction) for one in found]
            assert all(same(*pair) for pair in zip(got, found, strict=True))
            assert closing._graphs._opened.keys() == {"image_encoder", "detector"}
        closing.prepare()
        assert not any("text" in name for name in closing._graphs._opened)


def test_stream_does_not_fill_the_image_cache(segmenter, runs):
    segmenter.segment(picture(0), "star")
    list(segmenter.stream([picture(seed) for seed in range(1, 9)], "star"))
    segmenter.segment(picture(0), "star")
    assert runs.count("image_encoder") == 9
    assert runs.count("text_encoder.concept") == 1


def test_text_encoders_open_when_their_level_is_first_asked(tiny_bundle, monkeypatch):
    opened = []
    open_graph = Graphs.open

    def noted(self, name):
        if name not in self._opened:
            opened.append(name)
        return open_graph(self, name)

    monkeypatch.setattr(Graphs, "open", noted)
    with Segmenter(tiny_bundle.root, threads=1) as segmenter:
        assert opened == ["image_encoder", "detector"]
        segmenter.segment(picture(0), "star")
        segmenter.segment(picture(0), "ring")
        assert opened == ["image_encoder", "detector", "text_encoder.concept"]


def test_eight_threads_give_what_one_gives(segmenter):
    asked = [
        (seed, text, level)
        for seed in range(4)
        for text in ("star", "the red star left of the ring", "the shape with three corners")
        for level in ("auto", *LEVELS)
    ]
    wanted = {key: segmenter.segment(picture(key[0]), key[1], level=key[2]) for key in asked}
    with Segmenter(
        segmenter.info.bundle, threads=1, threshold=0.0, image_cache=2, instruction_cache=3
    ) as shared:
        start = threading.Barrier(8)

        def work(worker):
            start.wait()
            order = np.random.default_rng(worker).permutation(len(asked))
            return [
                (asked[i], shared.segment(picture(asked[i][0]), asked[i][1], level=asked[i][2]))
                for i in order
            ]

        with ThreadPoolExecutor(8) as pool:
            answers = [pair for answer in pool.map(work, range(8)) for pair in answer]
    assert len(answers) == 8 * len(asked)
    assert all(same(result, wanted[key]) for key, result in answers)


def test_threads_that_ask_about_one_image_encode_it_once(segmenter, runs, monkeypatch):
    run = Graphs.run

    def slow(self, name, inputs, wanted):
        time.sleep(0.05)  # so that the other threads arrive meanwhile
        return run(self, name, inputs, wanted)

    monkeypatch.setattr(Graphs, "run", slow)
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        return segmenter.segment(picture(0), "star")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert runs.count("image_encoder") == 1
    assert runs.count("text_encoder.concept") == 1
    assert runs.count("detector") == 8


def test_no_graph_runs_in_two_threads_at_once(segmenter, monkeypatch):
    inside, overlaps = set(), []
    run = Graphs.run

    def watched(self, name, inputs, wanted):
        if name in inside:
            overlaps.append(name)
        inside.add(name)
        try:
            return run(self, name, inputs, wanted)
        finally:
            inside.discard(name)

    monkeypatch.setattr(Graphs, "run", watched)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: segmenter.segment(picture(n % 6), f"star {n % 5}"), range(80)))
    assert overlaps == []


def test_prepare_opens_every_graph_and_tells_how_far_it_is(tiny_bundle):
    seen = []
    with Segmenter(tiny_bundle.root, threads=1) as segmenter:
        segmenter.prepare(lambda words, share: seen.append((words, share)))
        assert set(segmenter._graphs._opened) == set(tiny_bundle.graphs("onnx-fp32"))
        segmenter.prepare()
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert (shares[0], seen[-1]) == (0.0, ("ready", 1.0))
    assert "opening text_encoder.complex" in [words for words, _ in seen]
    with pytest.raises(RuntimeUnavailable, match="this Segmenter was closed"):
        segmenter.prepare()


@pytest.fixture
def builder(monkeypatch):
    """A device that builds engines: each graph's builds and openings, in order."""
    calls = []

    def choose(*_):
        return Choice(
            device="cpu",
            runtime="onnxruntime",
            precision="fp16",
            variant="onnx-fp32",
            builds=True,
            reason="so",
        )

    def prepare(runtime, path, device, *, precision, progress):
        calls.append(("build", path.stem, precision))
        if progress is not None:
            progress(f"building {path.stem}", 0.5)

    open_runtime = graphs.open_runtime

    def opened(runtime, path, device, *, threads, precision, **rest):
        calls.append(("open", path.stem, precision))
        return open_runtime(runtime, path, device, threads=threads, **rest)

    monkeypatch.setattr(segmenter_module, "choose", choose)
    monkeypatch.setattr(graphs, "prepare", prepare)
    monkeypatch.setattr(graphs, "open_runtime", opened)
    return calls


def test_engines_are_not_built_before_they_are_asked_for(tiny_bundle, builder):
    seen = []
    with Segmenter(tiny_bundle.root, threads=1) as segmenter:
        assert builder == []
        segmenter.prepare(lambda words, share: seen.append((words, share)))
        assert builder[:2] == [("build", "image_encoder", "fp16"), ("open", "image_encoder", "fp16")]
        assert len(builder) == 2 * 5
        segmenter.segment(picture(0), "star")
        assert len(builder) == 2 * 5
    assert ("building image_encoder", 0.1) in seen


def test_a_first_use_builds_what_it_needs(tiny_bundle, builder):
    with Segmenter(tiny_bundle.root, threads=1) as segmenter:
        segmenter.segment(picture(0), "star")
    assert {name for _, name, _ in builder} == {"image_encoder", "text_encoder.concept", "detector"}
