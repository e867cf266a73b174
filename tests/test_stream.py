"""Streams: cameras and files through OpenCV, threads, track ids, and what goes wrong."""

import gc
import itertools
import logging
import os
import signal
import threading
import time

import numpy as np
import pytest

from made_camera import reading
from made_segmenter import picture
from sam3i_edge import Segmenter
from sam3i_edge.errors import ImageError, InstructionError, RuntimeUnavailable, StreamError
from sam3i_edge.pipeline.graphs import Graphs


@pytest.fixture
def slow(monkeypatch):
    """Makes every frame take 50 ms."""
    run = Graphs.run

    def slower(self, name, inputs, wanted):
        if name == "image_encoder":
            time.sleep(0.05)
        return run(self, name, inputs, wanted)

    monkeypatch.setattr(Graphs, "run", slower)


def test_a_file_gives_every_frame_in_rgb_and_ends(segmenter, video):
    stream = segmenter.stream(video, "star")
    results = list(stream)
    assert [round(float(result.image.mean()) / 20) for result in results] == list(range(12))
    assert stream.dropped == 0
    assert list(stream) == []
    assert len(list(segmenter.stream(str(video), "star"))) == 12


def test_colours_come_as_rgb(segmenter, camera):
    with segmenter.stream(0, "star") as stream:
        image = next(stream).image
    assert image[0, 0, 1:].tolist() == [0, 7]
    assert image[0, 0, 0] > 0


def test_a_camera_drops_what_is_too_old_and_counts_it(segmenter, camera, slow):
    with segmenter.stream(3, "star") as stream:
        seen = [int(next(stream).image[0, 0, 0]) for _ in range(8)]
    assert camera.opened == 3
    assert seen == sorted(set(seen))
    assert seen[-1] - seen[0] > 2 * len(seen), "frames between were dropped"
    assert stream.dropped >= seen[-1] - seen[0] - len(seen) - 1
    assert camera.released.wait(2)
    assert reading() == []


@pytest.mark.parametrize("address", ["rtsp://camera/live", "nvarguscamerasrc ! video/x-raw ! appsink"])
def test_a_file_at_an_address_or_in_a_pipeline_ends(segmenter, camera, address):
    camera.frames = camera.length = 5
    results = list(segmenter.stream(address, "star"))
    assert camera.opened == address
    assert 1 <= len(results) <= 5
    assert results[-1].image[0, 0, 0] == 5, "the last frame is not dropped"


def test_every_frame_of_an_address_when_asked_for(segmenter, camera, slow):
    camera.frames = camera.length = 5
    stream = segmenter.stream("rtsp://camera/live", "star", newest=False)
    assert [int(result.image[0, 0, 0]) for result in stream] == [1, 2, 3, 4, 5]
    assert stream.dropped == 0
    assert camera.released.is_set()


def test_the_newest_of_a_generator_when_asked_for(segmenter, slow):
    def frames():
        for seed in range(30):
            time.sleep(0.01)
            yield picture(seed)

    stream = segmenter.stream(frames(), "star", newest=True)
    count = len(list(stream))
    assert count < 30
    assert count + stream.dropped == 30


def test_of_the_unread_frames_the_newest_is_kept(segmenter):
    """The source waits until all of them were read: the first result asked for afterwards is of the last."""
    go, done = threading.Event(), threading.Event()

    def frames():
        yield np.full((40, 60, 3), 1, np.uint8)
        go.wait(10)
        for number in range(2, 8):
            yield np.full((40, 60, 3), number, np.uint8)
        done.set()
        go.clear()
        go.wait(10)

    with segmenter.stream(frames(), "star", newest=True) as stream:
        assert next(stream).image[0, 0, 0] == 1
        go.set()
        assert done.wait(10)
        assert next(stream).image[0, 0, 0] == 7
        assert stream.dropped == 5
        go.set()


def test_what_is_opened_here_is_no_bgr(segmenter, video):
    for source in (0, str(video), video):
        with pytest.raises(TypeError, match="bgr=True is for arrays; a camera or a video is turned to RGB"):
            segmenter.stream(source, "star", bgr=True)


def test_a_camera_that_cannot_be_opened(segmenter, camera):
    camera.works = False
    stream = segmenter.stream(0, "star")
    with pytest.raises(StreamError, match="camera 0 cannot be opened"):
        next(stream)
    assert camera.released.wait(2)
    assert list(stream) == []


def test_a_thread_that_cannot_be_stopped_is_told_of(segmenter, caplog):
    forever = threading.Event()

    def frames():
        yield picture(0)
        forever.wait(10)

    stream = segmenter.stream(frames(), "star", newest=True, timeout=0.1)
    with caplog.at_level(logging.WARNING), pytest.raises(StreamError, match="the stream gave no frame"):
        list(stream)
    assert "still being waited for" in caplog.text
    forever.set()


def test_bad_sources(segmenter, tmp_path):
    with pytest.raises(StreamError, match=r"there is no video at '.*nothing\.mp4'"):
        segmenter.stream(tmp_path / "nothing.mp4", "star")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(StreamError, match=r"text\.mp4' cannot be opened"):
        next(segmenter.stream(tmp_path / "text.mp4", "star"))
    with pytest.raises(ValueError, match="a camera's number is at least 0, got -1"):
        segmenter.stream(-1, "star")
    with pytest.raises(TypeError, match="got a bool"):
        segmenter.stream(True, "star")
    with pytest.raises(TypeError, match="not iterable"):
        segmenter.stream(1.5, "star")
    with pytest.raises(ValueError, match="timeout must be above 0 seconds, got 0"):
        segmenter.stream([], "star", timeout=0)


def test_the_instruction_changes_on_the_fly(segmenter):
    frames = [picture(0)] * 4
    stream = segmenter.stream(frames, "star")
    assert stream.instruction == "star"
    first = next(stream)
    stream.instruction = "every large square"
    second = next(stream)
    wanted = segmenter.segment(picture(0), "every large square")
    assert (second.instruction, second.level) == ("every large square", wanted.level)
    assert np.array_equal(second.mask_logits, wanted.mask_logits)
    with pytest.raises(InstructionError, match="empty"):
        stream.instruction = " "
    assert next(stream).instruction == "every large square", "what was refused changes nothing"
    assert set(first.track_ids).isdisjoint(second.track_ids), "new things were asked for: new tracks"


def test_track_ids_stay_while_nothing_moves(segmenter):
    results = list(segmenter.stream([picture(0)] * 3, "star"))
    assert all(np.array_equal(result.track_ids, results[0].track_ids) for result in results)
    assert sorted(results[0].track_ids) == list(range(1, len(results[0]) + 1))
    assert results[0].track_ids.dtype == np.int64
    assert segmenter.segment(picture(0), "star").track_ids is None


def test_frames_may_change_their_size(segmenter):
    sizes = [(40, 60), (40, 60), (64, 32), (40, 60)]
    results = list(segmenter.stream([picture(0, size) for size in sizes], "star"))
    assert [result.image_size for result in results] == sizes
    assert np.array_equal(results[0].track_ids, results[1].track_ids)
    assert set(results[1].track_ids).isdisjoint(results[2].track_ids), "another picture: new tracks"


@pytest.mark.parametrize("newest", [False, True])
def test_an_error_of_the_source_reaches_the_caller_and_closes(segmenter, newest):
    def frames():
        yield picture(0)
        time.sleep(0.1)
        raise OSError("the cable was cut")

    stream = segmenter.stream(frames(), "star", newest=newest)
    next(stream)
    with pytest.raises(OSError, match="the cable was cut"):
        next(stream)
    assert list(stream) == []
    assert reading() == []


def test_a_frame_that_is_no_image(segmenter):
    stream = segmenter.stream([picture(0), np.zeros((0, 4, 3), np.uint8), picture(1)], "star")
    next(stream)
    with pytest.raises(ImageError, match="nothing to segment"):
        next(stream)
    assert list(stream) == []


def test_ctrl_c_stops_the_thread(segmenter, camera, monkeypatch):
    stream = segmenter.stream(0, "star")
    next(stream)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Graphs, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert camera.released.wait(2)
    assert reading() == []


def test_ctrl_c_ends_the_wait_for_a_frame(segmenter, camera):
    camera.stall = 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells have it ignored
    main = threading.main_thread().ident
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
    start = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(segmenter.stream(0, "star", timeout=30))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - start < 5
    camera.released.set()


def test_closing_twice_and_leaving_the_loop(segmenter, camera, video):
    with segmenter.stream(0, "star") as stream:
        for _ in stream:
            break
    stream.close()
    assert list(stream) == []
    assert reading() == []
    with segmenter.stream(video, "star") as stream:
        next(stream)
    assert list(stream) == []


def test_a_stream_that_is_forgotten_stops_reading(segmenter, camera):
    stream = segmenter.stream(0, "star")
    next(stream)
    del stream
    gc.collect()
    assert camera.released.wait(2)
    assert reading() == []


def test_close_from_another_thread_ends_the_wait(segmenter, camera):
    camera.stall = 0
    stream = segmenter.stream(0, "star", timeout=30)
    threading.Timer(0.2, stream.close).start()
    start = time.perf_counter()
    assert list(stream) == []
    assert time.perf_counter() - start < 5
    camera.released.set()


def test_a_closed_segmenter_ends_its_streams(tiny_bundle, camera):
    segmenter = Segmenter(tiny_bundle.root, threads=1)
    stream = segmenter.stream(0, "star")
    next(stream)
    segmenter.close()
    with pytest.raises(RuntimeUnavailable, match="this Segmenter was closed"):
        next(stream)
    assert reading() == []


def test_nothing_is_opened_before_the_first_result(segmenter, camera):
    stream = segmenter.stream(0, "star")
    assert camera.opened is None
    stream.close()
    assert list(stream) == []
    assert camera.opened is None


def _resident():
    """Resident memory of this process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_stays_flat_over_10_000_frames(segmenter):
    images = [picture(seed) for seed in range(4)]
    stream = segmenter.stream(itertools.cycle(images), "star")
    for _ in range(1_000):
        next(stream)
    gc.collect()
    before = _resident()
    for number in range(10_000):
        if number % 1_000 == 0:
            stream.instruction = f"star {number}"
        next(stream)
    gc.collect()
    assert _resident() - before < 20
