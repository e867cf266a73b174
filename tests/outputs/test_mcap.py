"""An MCAP that is written, read again by the library that reads recordings."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from sam3i_edge import Segmenter
from sam3i_edge.outputs.answer import Answer
from sam3i_edge.outputs.mcap import mcap_file
from sam3i_edge.outputs.open import open_output

SIZE = (40, 60)
TOPICS = {"/image", "/annotations", "/detections", "/label_image"}


def read(path):
    """The messages by topic, with their times in seconds."""
    found = {}
    with AnyReader([path]) as reader:
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns / 1e9, message))
    return found


@pytest.fixture
def results(tiny_bundle):
    """Of a grey picture with soft spots, by two instructions; every query is an instance."""
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), None, 3)
    with Segmenter(tiny_bundle.root, threshold=0.0) as segmenter:
        return segmenter.segment(pixels, ["star", "every ring"])


def points(loop):
    return np.array([(point.x, point.y) for point in loop.points])


def test_pictures_have_what_is_drawn_over_them_and_what_was_found(results, tmp_path):
    tracked = [replace(one, track_ids=np.arange(7, 7 + len(one))) for one in results]
    with open_output(tmp_path / "seen.mcap", {}) as output:
        output.write(Answer("a.png", results))
        output.write(Answer("broken.png", error="no picture"))
        output.write(Answer("clip/0", tracked, 0.0))
        output.write(Answer("clip/1", tracked, 0.25))
        assert not (tmp_path / "seen.mcap").exists(), "it appears when it is whole"
    assert [path.name for path in tmp_path.iterdir()] == ["seen.mcap"]
    found = read(tmp_path / "seen.mcap")
    assert set(found) == TOPICS
    for topic in TOPICS:
        assert [round(time, 6) for time, _ in found[topic]] == [0, 0, 0.25]
        assert len({time for time, _ in found[topic]}) == 3, "no two have one time"

    picture = found["/image"][0][1]
    assert (picture.header.frame_id, picture.format) == ("a.png", "jpeg")
    seen = cv2.imdecode(picture.data, cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(seen.astype(int) - results[0].image).mean() < 10

    instances = [(one, place) for one in results for place in range(len(one))]
    detections = found["/detections"][0][1].detections
    assert [one.id for one in detections] == [str(n) for n in range(1, len(instances) + 1)]
    assert [one.results[0].hypothesis.class_id for one in detections] == [r.instruction for r, _ in instances]
    assert {one.id for one in found["/detections"][1][1].detections} == {"7", "8", "9", "10"}

    labels = found["/label_image"][0][1]
    pixels = np.frombuffer(labels.data, np.uint8).reshape(SIZE)
    masks = np.concatenate([one.masks for one in results])
    np.testing.assert_array_equal(pixels, np.where(masks.any(0), masks.argmax(0) + 1, 0))

    drawn = found["/annotations"][0][1]
    assert [text.text for text in drawn.texts] == [
        f"{n}: {one.instruction} {one.scores[place]:.2f}" for n, (one, place) in enumerate(instances, 1)
    ]
    loops = iter(drawn.points)
    for one, place in instances:
        for outer, holes in one.polygons[place]:
            loop = next(loops)
            np.testing.assert_array_equal(points(loop), outer)
            assert (loop.type, loop.fill_color.a > 0) == (loop.LINE_LOOP, not holes)
            for hole in holes:
                np.testing.assert_array_equal(points(next(loops)), hole)
        corners = points(next(loops))
        np.testing.assert_allclose([*corners.min(0), *corners.max(0)], one.boxes[place], atol=1e-4)
    assert next(loops, None) is None
    assert any(holes for one, place in instances for _, holes in one.polygons[place])


def test_a_run_that_fails_leaves_none(tmp_path):
    with pytest.raises(KeyboardInterrupt), mcap_file(tmp_path / "seen.mcap"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
