import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from sam3i_edge.motion_tracking import MotionTracker
from sam3i_edge.tracking import TRACKERS, Tracker, open_tracker
from tests.test_tracking import frame

pytest.importorskip("trackers")


def crossing(tracker, lost=(), speed=1, steps=30):
    """Ids of two equal squares that cross each other, one from the left and one from the right."""
    found = {}
    for step in range(steps):
        x = 2 + speed * step
        left, right = (x, 10, x + 8, 18), (56 - x, 10, 64 - x, 18)
        numbers = tracker.update(frame(*(() if step in lost else (left, right)), side=64))
        found[step] = numbers.tolist()
    return found


@pytest.mark.parametrize("name", ["bytetrack", "ocsort"])
def test_things_that_cross_keep_their_ids(name):
    found = crossing(open_tracker(name))
    assert found[1] == found[29] == [1, 2]


def test_without_a_prediction_they_may_swap():
    assert crossing(Tracker(), speed=5, steps=11)[10] == [2, 1]
    assert crossing(open_tracker("bytetrack"), speed=5, steps=11)[10] == [1, 2]


@pytest.mark.parametrize("name", ["bytetrack", "ocsort"])
def test_ids_outlast_three_lost_frames(name):
    found = crossing(open_tracker(name), lost=(14, 15, 16))
    assert found[1] == found[29] == [1, 2]


def test_a_thing_that_leaves_and_comes_back_soon_keeps_its_id_and_after_long_gets_another():
    tracker = MotionTracker("bytetrack")
    box = (10, 10, 20, 20)
    for _ in range(4):
        assert len(tracker.update(frame(box))) == 1
    for _ in range(10):
        assert tracker.update(frame()).tolist() == []
    assert tracker.update(frame(box)).tolist() == [1]
    for _ in range(40):
        tracker.update(frame())
    tracker.update(frame(box))
    assert tracker.update(frame(box)).tolist() == [2]


def test_the_first_frame_of_a_track_is_undecided_and_ids_follow_rows_not_order():
    tracker = MotionTracker("bytetrack")
    one, two = (2, 2, 12, 12), (25, 20, 35, 30)
    assert tracker.update(frame(one, two)).tolist() == [0, 0]
    assert tracker.update(frame(one, two)).tolist() == [1, 2]
    assert tracker.update(frame(two, one)).tolist() == [2, 1]


def test_reset_never_gives_an_id_again():
    tracker = MotionTracker("ocsort")
    for _ in range(2):
        tracker.update(frame((0, 0, 10, 10), (20, 20, 30, 30)))
    tracker.reset()
    tracker.update(frame((0, 0, 10, 10)))
    assert tracker.update(frame((0, 0, 10, 10))).tolist() == [3]


def test_what_is_undecided_is_untracked_for_supervision():
    result = dataclasses.replace(frame((0, 0, 10, 10), (20, 20, 30, 30)), track_ids=np.array([0, 4]))
    assert result.to_supervision().tracker_id.tolist() == [-1, 4]


def test_an_unknown_tracker_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown tracker 'sort'; choose from iou, bytetrack, ocsort"):
        open_tracker("sort")
    assert TRACKERS == ("iou", "bytetrack", "ocsort")


def test_without_the_library_the_extra_is_named():
    code = (
        "import sys; sys.modules['trackers'] = None\n"
        "from sam3i_edge.tracking import open_tracker\n"
        "try: open_tracker('bytetrack')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tracker='bytetrack' needs the library trackers: pip install")
    assert "track]" in done.stdout
