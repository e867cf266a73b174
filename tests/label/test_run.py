"""One data set, labelled however the work is shared out, killed and gone on with, and decided on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sam3i_edge
from sam3i_edge import Segmenter, files
from sam3i_edge.data.review.decisions import Decision, append_decision
from sam3i_edge.data.review.folder import ReviewFolder
from sam3i_edge.data.review.queue import read_queue
from sam3i_edge.errors import DataError
from sam3i_edge.label.run import label
from sam3i_edge.label.shards import LabelConfig, pictures_of
from sam3i_edge.shards.map import one_by_one
from sam3i_edge.shards.processes import in_processes

INSTRUCTIONS = ("star", "every large square")
PICTURES = 7


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label") / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(4)
    for number in range(PICTURES):
        name = f"{'deep/' if number % 2 else ''}{number}.png"
        Image.fromarray(rng.integers(0, 256, (30, 44, 3), np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    return folder


@pytest.fixture(autouse=True)
def _listed_anew():
    """Pictures are listed once a process; tests change them."""
    pictures_of.cache_clear()


@pytest.fixture(scope="module")
def config(photos, tiny_bundle):
    return LabelConfig(
        pictures=str(photos),
        instructions=INSTRUCTIONS,
        model=str(tiny_bundle.root),
        threads=1,
        threshold=0.4,
        margin=0.1,
        duplicates=0.5,
        shard=2,
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("label") / "whole"
    pictures_of.cache_clear()
    return out, label(config, out, review=True)


def contents(folder):
    """What a run leaves, but for the lock and the report, which names the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "report.json")
    }


def coco_of(folder):
    return json.loads((folder / "coco.json").read_text())


def test_labels_are_what_one_segmenter_finds(whole, config, photos):
    out, report = whole
    coco = coco_of(out)
    names = [image["file_name"] for image in coco["images"]]
    assert names == ["0.png", "2.png", "4.png", "6.png", "deep/1.png", "deep/3.png", "deep/5.png"]
    assert (report.pictures, list(report.broken)) == (PICTURES, ["broken.jpg"])
    assert sum(report.labels.values()) == len(coco["annotations"]) > PICTURES
    assert sum(report.dropped.values()) > 0
    with Segmenter(config.model) as segmenter:
        for image in coco["images"]:
            want = [
                (category, mask["counts"])
                for category, result in enumerate(
                    segmenter.segment(photos / image["file_name"], list(INSTRUCTIONS), threshold=0.4), start=1
                )
                for mask in result.mask_rle
            ]
            found = [
                (one["category_id"], one["segmentation"]["counts"])
                for one in coco["annotations"]
                if one["image_id"] == image["id"]
            ]
            assert set(found) <= set(want)
            assert found


def test_the_same_files_however_the_work_is_shared_out(whole, config, tmp_path):
    label(config, tmp_path / "two", review=True, run=in_processes(2, start="spawn"))
    backwards = lambda work, numbers: one_by_one(work, numbers[::-1])  # noqa: E731
    label(replace(config, threads=2), tmp_path / "backwards", review=True, run=backwards)
    assert contents(tmp_path / "two") == contents(tmp_path / "backwards") == contents(whole[0])


def test_kill_9_and_going_on(whole, config, tmp_path):
    script = textwrap.dedent("""
        import os, pickle, signal, sys
        from sam3i_edge.label.run import label

        stored = 0

        def tell(words, share):
            global stored
            stored += " of " in words
            if stored == 3:  # told before the first, and after each
                os.kill(os.getpid(), signal.SIGKILL)

        label(pickle.load(sys.stdin.buffer), sys.argv[1], review=True, progress=tell)
    """)
    import pickle

    out = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        input=pickle.dumps(config),
        env={**os.environ, "PYTHONPATH": str(Path(sam3i_edge.__file__).parents[1])},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "coco.json").exists()
    done = []

    def told(work, numbers):
        done.extend(numbers)
        return one_by_one(work, numbers)

    label(config, out, review=True, run=told)
    assert done == [2, 3]  # of four shards
    assert contents(out) == contents(whole[0])


def test_another_format_asks_nothing_again(whole, config, tmp_path):
    out = tmp_path / "out"
    label(config, out)

    def nobody(work, numbers):
        raise AssertionError(numbers)

    report = label(config, out, formats=["coco", "yolo", "cvat", "label-studio", "fiftyone"], run=nobody)
    assert {Path(path).name for path in report.written.values()} == {
        "coco.json", "yolo", "cvat.xml", "label-studio.json", "fiftyone",
    }  # fmt: skip
    assert coco_of(out) == coco_of(whole[0])


def test_a_file_has_its_work_beside_it(whole, config, tmp_path):
    label(config, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == (whole[0] / "coco.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.json.labels"]


def test_the_review_page_shows_what_is_uncertain(whole, photos):
    out, report = whole
    queue = read_queue(out)
    assert queue.problems == ()
    assert len(queue.items) == report.uncertain > 1
    assert all(item.why for item in queue.items.values())
    folder = ReviewFolder(out)
    assert folder.counts()["undecided"] == report.uncertain
    for number, item in enumerate(queue.items.values()):
        assert folder.picture(number)[:2] == b"\xff\xd8"
        assert (out / item.file).samefile(photos / item.file.removeprefix("images/"))


def decide(folder, item, decision, targets=()):
    line = Decision(
        id=item.id,
        decision=decision,
        text=None if decision == "reject" else item.text,
        targets=tuple(targets),
        time=datetime.now(timezone.utc),
    )
    append_decision(folder, line)


def test_what_is_decided_replaces_labels(whole, config, tmp_path):
    out = tmp_path / "out"
    label(config, out, review=True)
    before = coco_of(out)
    items = list(read_queue(out).items.values())
    rejected = next(item for item in items if item.targets)
    mended = next(item for item in items if item.others and item is not rejected)
    decide(out, rejected, "reject")
    decide(out, mended, "mend", mended.others[:1])
    report = label(config, out, review=True)
    assert report.decided == 2

    def labels(coco, item):
        image = next(i["id"] for i in coco["images"] if f"images/{i['file_name']}" == item.file)
        category = INSTRUCTIONS.index(item.text) + 1
        return [
            one["segmentation"]["counts"]
            for one in coco["annotations"]
            if (one["image_id"], one["category_id"]) == (image, category)
        ]

    after = coco_of(out)
    assert labels(before, rejected)
    assert labels(after, rejected) == []
    assert labels(after, mended) == [mended.others[0].counts]
    assert [item.id for item in read_queue(out).items.values()] == [item.id for item in items]


def test_a_full_disk_ends_in_one_line_and_goes_on(whole, config, tmp_path, monkeypatch):
    writes = []
    write = files.write_whole

    def full(path, content):
        writes.append(path)
        if len(writes) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    for module in ("label.run", "shards.folder"):
        monkeypatch.setattr(f"sam3i_edge.{module}.write_whole", full)
    with pytest.raises(DataError, match=r"No space left on device.*the same command goes on"):
        label(config, tmp_path / "out", review=True)
    label(config, tmp_path / "out", review=True)
    assert contents(tmp_path / "out") == contents(whole[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.5}, r"other settings \(threshold 0\.4 against 0\.5"),
        ({"instructions": ("star",)}, r"other settings \(instructions"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(whole, config, change, message):
    with pytest.raises(DataError, match=message):
        label(replace(config, **change), whole[0])


def test_two_runs_at_a_time_are_refused(config, tmp_path):
    code = textwrap.dedent("""
        import pickle, sys
        from sam3i_edge.label.run import label
        from sam3i_edge.errors import DataError
        try:
            label(pickle.load(sys.stdin.buffer), sys.argv[1])
        except DataError as error:
            print(error)
    """)
    import pickle

    said = []

    def meanwhile(work, numbers):
        environment = {**os.environ, "PYTHONPATH": str(Path(sam3i_edge.__file__).parents[1])}
        said.append(
            subprocess.check_output(
                [sys.executable, "-c", code, str(tmp_path / "out")],
                input=pickle.dumps(config),
                env=environment,
                timeout=120,
            ).decode()
        )
        return one_by_one(work, numbers)

    label(config, tmp_path / "out", run=meanwhile)
    assert "another process writes" in said[0]


def test_no_picture_that_can_be_read_is_an_error(config, photos, tmp_path):
    with pytest.raises(DataError, match=r"no picture could be read: .*broken\.jpg: not an image"):
        label(replace(config, pictures=str(photos / "broken.*")), tmp_path / "out")


@pytest.mark.parametrize(
    ("out", "formats", "message"),
    [
        ("x.json", ["yolo"], r"yolo wants a folder"),
        ("x.xml", ["coco"], r"coco wants a folder, or a file \*\.json"),
        ("x.json", ["coco", "cvat"], "coco, cvat wants a folder"),
        ("x", ["voc"], "unknown format 'voc'; choose from coco, yolo"),
    ],
)
def test_wrong_outputs_are_refused_before_work(config, tmp_path, out, formats, message):
    with pytest.raises(ValueError, match=message):
        label(config, tmp_path / out, formats=formats)
    assert list(tmp_path.iterdir()) == []
