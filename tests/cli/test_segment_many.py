"""`segment` over many pictures, as people have them and as they break."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sam3i_edge import Segmenter
from sam3i_edge.cli.app import main
from sam3i_edge.errors import DataError
from sam3i_edge.masks import overlay, rle
from sam3i_edge.outputs.answer import Answer
from sam3i_edge.outputs.lines import Lines


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three pictures, one in a subfolder, one broken, and what is no picture."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "deep/c.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def clip(tmp_path):
    """Twelve frames at 10 a second, each of another grey."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (60, 40))
    for number in range(12):
        writer.write(np.full((40, 60, 3), 20 * number, np.uint8))
    writer.release()
    return tmp_path / "clip.avi"


@pytest.fixture
def run(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        got = main(["segment", *map(str, arguments), "-t", "0.3", "--model", str(tiny_bundle.root)])
        shown = capsys.readouterr()
        assert got == code, shown.err
        return shown

    return run


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def same(a, b):
    """Equal but for times."""
    return {**a, "timings_ms": None} == {**b, "timings_ms": None}


def test_a_folder_is_a_line_a_picture_and_the_broken_one_is_named(run, photos, tiny_bundle):
    shown = run(photos, "-i", "star", "-i", "every large square", "--jsonl")
    lines = lines_of(shown.out)
    assert [line["name"] for line in lines] == ["a.png", "b.jpg", "broken.png", "deep/c.png"]
    assert "header is damaged" in lines[2]["error"]
    assert "3 pictures segmented, 0 were there from a run before, 1 could not be read" in shown.err
    assert sum("broken.png" in line for line in shown.err.splitlines()) == 1
    with Segmenter(tiny_bundle.root, threshold=0.3) as segmenter:
        for line in (lines[0], lines[1], lines[3]):
            want = segmenter.segment(photos / line["name"], ["star", "every large square"])
            assert line["size"] == [40, 60]
            assert all(map(same, line["results"], [result.to_dict() for result in want]))
    assert sum(len(result["instances"]) for result in lines[0]["results"]) > 0


def test_patterns_and_several_names_are_named_as_written(run, photos):
    shown = run("photos/*.png", "photos/a.png", "photos/b.jpg", "-i", "star", "--jsonl")
    assert [line["name"] for line in lines_of(shown.out)] == [
        "photos/a.png", "photos/broken.png", "photos/b.jpg",
    ]  # fmt: skip


def test_the_file_of_instructions_may_have_a_byte_order_mark_and_empty_lines(run, photos, tmp_path):
    (tmp_path / "asked.txt").write_bytes(b"\xef\xbb\xbfstar\r\n\r\n  every large square \n\nstar\n")
    shown = run("photos/a.png", "--instructions", "asked.txt", "--jsonl")
    assert [result["instruction"] for result in lines_of(shown.out)[0]["results"]] == [
        "star", "every large square",
    ]  # fmt: skip


def test_coco_is_read_by_pycocotools(run, photos, tmp_path):
    lines = lines_of(run("photos/a.png", "-i", "star", "-i", "every large square", "--jsonl").out)
    run("photos/a.png", "photos/deep", "-i", "star", "-i", "every large square", "-o", "found.json", "--json")
    coco = COCO(str(tmp_path / "found.json"))
    assert [coco.imgs[n]["file_name"] for n in coco.getImgIds()] == ["photos/a.png", "photos/deep/c.png"]
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["star", "every large square"]
    want = [
        (category, instance["mask"], instance["score"])
        for category, result in enumerate(lines[0]["results"], start=1)
        for instance in result["instances"]
        if rle.area(instance["mask"])
    ]
    found = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [(one["category_id"], one["segmentation"], one["score"]) for one in found] == want
    for one in found:
        mask = coco.annToMask(one)
        assert mask.sum() == one["area"] > 0
        x, y, w, h = map(int, one["bbox"])
        assert mask[y : y + h, x : x + w].sum() == one["area"]
    assert [path.name for path in tmp_path.glob(".found*")] == []


def test_a_folder_of_drawings_goes_on_where_it_stopped(run, photos, tmp_path, monkeypatch):
    drawn = []
    write = overlay.write

    def full(picture, path):
        if len(drawn) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        drawn.append(Path(path).name)
        return write(picture, path)

    monkeypatch.setattr(overlay, "write", full)
    shown = run(photos, "-i", "star", "-o", "out", code=1)
    assert "No space left on device" in shown.err.splitlines()[-1]
    with (tmp_path / "out" / "results.jsonl").open("ab") as file:
        file.write(b'{"name": "deep/c.p')  # what kill -9 leaves
    monkeypatch.setattr(overlay, "write", write)
    shown = run(photos, "-i", "star", "-o", "out", "--json")
    report = json.loads(shown.out)
    assert (report["pictures"], report["kept"], list(report["broken"])) == (1, 2, ["broken.png"])
    kept = lines_of((tmp_path / "out" / "results.jsonl").read_text())
    assert [line["name"] for line in kept] == ["a.png", "b.jpg", "broken.png", "deep/c.png"]
    files = (path for path in Path("out").rglob("*") if path.is_file())
    assert sorted(path.relative_to("out").as_posix() for path in files) == [
        "a.png", "b.jpg", "deep/c.png", "results.jsonl",
    ]  # fmt: skip
    run(photos, "-i", "every large square", "-o", "out", code=1)


def test_two_runs_in_one_output_and_other_instructions_are_refused(run, photos, tmp_path):
    run("photos/a.png", "-i", "star", "-o", "out.jsonl", "--json")
    shown = run("photos/a.png", "-i", "ring", "-o", "out.jsonl", "--json", code=1)
    assert "holds answers of another run (instructions ['star'] against ['ring'])" in shown.err
    script = (
        "import fcntl,sys; f=open(sys.argv[1],'ab'); fcntl.flock(f,fcntl.LOCK_EX); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, "out.jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    shown = run("photos/a.png", "-i", "star", "-o", "out.jsonl", "--json", code=1)
    other.communicate(b"\n")
    assert "another process writes out.jsonl" in shown.err


def test_a_video_is_tracked_drawn_and_every_third_frame(run, clip, tmp_path):
    shown = run(clip, "-i", "star", "--every", "3", "--track", "iou", "-o", "seen.mp4", "--jsonl")
    lines = lines_of(shown.out)
    assert [line["name"] for line in lines] == [f"{clip.as_posix()}/{n:06d}" for n in (0, 3, 6, 9)]
    assert [line["seconds"] for line in lines] == pytest.approx([0, 0.3, 0.6, 0.9])
    ids = [[one["track_id"] for one in line["results"][0]["instances"]] for line in lines]
    assert ids[0]
    assert ids[0] == sorted(set(ids[0]))
    with av.open(str(tmp_path / "seen.mp4")) as video:
        frames = list(video.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.3, 0.6, 0.9], abs=1e-3)
    assert frames[0].width >= 480


def test_a_tracked_video_that_was_interrupted_ends_with_the_same_ids(run, clip, tmp_path):
    run(clip, "-i", "star", "--track", "iou", "-o", "whole.jsonl", "--json")
    whole = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(whole[:5]) + whole[5][:40])
    report = json.loads(run(clip, "-i", "star", "--track", "iou", "-o", "part.jsonl", "--json").out)
    assert (report["pictures"], report["kept"]) == (7, 5)
    found, want = (lines_of((tmp_path / name).read_text()) for name in ("part.jsonl", "whole.jsonl"))
    for a, b in zip(found, want, strict=True):
        assert same(a["results"][0], b["results"][0])
        assert a["name"] == b["name"]


def test_a_video_that_ends_in_the_middle_of_a_frame_is_named(run, clip, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "long.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (60, 40))
    noise = np.random.default_rng(0)
    for _ in range(40):
        writer.write(noise.integers(0, 256, (40, 60, 3), np.uint8))
    writer.release()
    content = (tmp_path / "long.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    shown = run("cut.avi", "photo-that-is-none", "-i", "star", "--json", "-o", "x.jsonl", code=1)
    assert "there is nothing at 'photo-that-is-none'" in shown.err
    report = json.loads(run("cut.avi", "-i", "star", "--json", "-o", "x.jsonl").out)
    assert 5 < report["pictures"] < 30
    assert "frames: its end is missing" in report["broken"]["cut.avi/end"]


class Camera:
    """Five frames, then it is pulled out."""

    def __init__(self, source):
        self.left = 5

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        self.left -= 1
        return (True, np.full((40, 60, 3), 90, np.uint8)) if self.left >= 0 else (False, None)

    def get(self, _):
        return 0

    def release(self):
        """Nothing is held."""


def test_a_camera_that_is_pulled_out_leaves_a_whole_video(run, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    shown = run("0", "-i", "star", "-o", "seen.mp4", "--json", code=1)
    report = json.loads(shown.out)
    assert report["pictures"] >= 1
    assert "camera 0 stopped after 5 frames" in report["lost"]
    with av.open(str(tmp_path / "seen.mp4")) as video:
        assert len(list(video.decode(video=0))) == report["pictures"]


def test_opencv_says_nothing_on_stderr(photos, tiny_bundle):
    arguments = ["segment", "99", "-i", "star", "--jsonl", "--model", str(tiny_bundle.root)]
    done = subprocess.run(
        [sys.executable, "-m", "sam3i_edge", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "0 pictures segmented, 0 were there from a run before, 0 could not be read",
        "camera 99 cannot be opened",
    ]


def test_arrays_addresses_and_standard_input(run, photos, tmp_path, monkeypatch):
    pixels = np.asarray(Image.open(photos / "a.png").convert("RGB"))
    np.save(tmp_path / "a.npy", pixels[..., ::-1])
    np.savez(tmp_path / "two.npz", a=pixels)
    content = (photos / "a.png").read_bytes()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Tests are quiet."""

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        names = ["photos/a.png", "a.npy", "-", f"{address}/a.png", f"{address}/none.png"]
        lines = lines_of(run(*names, "-i", "star", "--bgr", "--jsonl").out)
        server.shutdown()
    by_name = {line["name"]: line for line in lines}
    assert set(by_name) == set(names)
    assert "404" in by_name[names[4]]["error"]
    for name in names[1:4]:
        assert same(by_name[name]["results"][0], by_name["photos/a.png"]["results"][0])
    assert by_name["photos/a.png"]["results"][0]["instances"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos", "-i", "star"], "say where the results go"),
        (["photos", "-i", "star", "-o", "one.png"], "-o one.png is one picture, and there are several"),
        (["photos", "-i", "star", "-o", "x.gif"], "cannot write 'x.gif': want a folder, or a name ending in"),
        (["photos", "-i", "star", "-o", "x.jsonl", "-o", "photos/../x.jsonl"], "x.jsonl is given twice"),
        (["photos/a.png", "photos/b.jpg"], "photos/b.jpg is a file and no INSTRUCTION"),
        (["photos", "-i", "star", "--track", "iou", "--jsonl"], "--track is for the frames of videos"),
        (["clip.avi", "-i", "star", "--track", "best", "--jsonl"], "--track 'best': choose from iou"),
        (["photos", "-i", "star", "--every", "2", "--jsonl"], "every is for the frames of videos"),
        (["photos", "-i", "star", "--bgr", "--jsonl"], "--bgr is for arrays"),
        (["photos", "-i", "star", "--box", "1,1,2,2", "--jsonl"], "--box is of one picture"),
        (["photos/a.png", "-i", "star", "--json", "--jsonl"], "give one of them"),
        (["photos", "--instructions", "no.txt", "--jsonl"], "no.txt cannot be read: No such file"),
        (["photos", "--instructions", "wide.txt", "--jsonl"], "wide.txt is no text in UTF-8: save it as"),
        (["photos", "--instructions", "empty.txt", "--jsonl"], "empty.txt holds no instruction"),
        (["photos", "-i", " ", "--jsonl"], "the instruction is empty"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_before_anything_is_written(run, photos, clip, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "wide.txt").write_text("a star\n", encoding="utf-16")
    before = sorted(tmp_path.rglob("*"))
    shown = run(*arguments, code=2)
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_where_nothing_can_be_read_the_run_has_failed(run, photos):
    assert (
        "1 could not be read" in run("photos/broken.png", "-i", "star", "-i", "ring", "--jsonl", code=1).err
    )


def test_a_full_disk_while_lines_are_written_names_the_file(tmp_path):
    lines = Lines(tmp_path / "x.jsonl", {"instructions": ["star"]})
    os.dup2(os.open("/dev/full", os.O_WRONLY), lines._file.fileno())
    with pytest.raises(OSError, match=r"x\.jsonl"):
        lines.write(Answer("a.png", error="x"))
    assert "a.png" not in lines.kept
    with pytest.raises(OSError, match=r"x\.jsonl"):
        lines.__exit__()


def test_a_file_of_lines_stays_held_when_it_was_read(tmp_path):
    with Lines(tmp_path / "x.jsonl", {"instructions": ["star"]}) as lines:
        lines.write(Answer("a.png", error="x"))
        assert [line["name"] for line in lines] == ["a.png"]
        with pytest.raises(DataError, match="another process writes"):
            Lines(tmp_path / "x.jsonl", {"instructions": ["star"]})
