from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sam3i_edge
from sam3i_edge import files
from sam3i_edge.data.annotations import read_annotations
from sam3i_edge.data.families import SPELLED
from sam3i_edge.data.instruct import run as run_module
from sam3i_edge.data.instruct.report import InstructReport
from sam3i_edge.data.instruct.run import instruct
from sam3i_edge.data.instruct.shards import InstructConfig, opened
from sam3i_edge.data.review.queue import read_queue
from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.levels import LEVELS
from sam3i_edge.shards.map import one_by_one
from sam3i_edge.shards.processes import in_processes

SHAPES = load_vocabulary("shapes")
PICTURES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_scene_folder):
    return write_scene_folder(tmp_path_factory.mktemp("instruct") / "scenes", PICTURES)


@pytest.fixture(autouse=True)
def _opened_anew():
    """Sources are opened once a process; tests change them."""
    opened.cache_clear()


def config(folder, **settings):
    return InstructConfig(
        source=str(folder), vocabulary="shapes", **{"per_image": 6, "review": 1, "shard": 2, **settings}
    )


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("instruct") / "whole"
    opened.cache_clear()
    return out, instruct(config(folder), out)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_every_record_means_what_its_texts_say(whole, folder):
    out, report = whole
    source = open_source(folder, SHAPES)
    scenes = {source.file_name(n): source.scene(n) for n in range(len(source))}
    records = read_annotations(out / "annotations.json")
    assert [r.image_id for r in records] == list(range(1, len(records) + 1))
    assert {r.file_name for r in records} == set(scenes)
    texts = Counter()
    for record in records:
        masks = {mask.tobytes() for mask in record.masks()}
        assert masks <= {item.mask.tobytes() for item in scenes[record.file_name].objects}
        assert (record.granularity == "none") == (not masks)
        for level in LEVELS:
            texts[level] += (
                0
                if record.granularity in ("one", "subset") and level == "concept"
                else len(getattr(record, level))
            )
    assert dict(texts) == report.level
    assert report.instructions == texts.total() == sum(report.family.values()) > 5 * PICTURES
    assert set(report.family) <= set(SPELLED)
    assert len(report.family) > 5
    assert sum(report.granularity.values()) == sum(report.form.values()) == report.instructions
    # A simple and a complex text for the same targets, in most pictures.
    assert len({r.file_name for r in records if r.simple and r.complex and r.annotations}) > PICTURES // 2


def test_what_is_not_proven_waits_for_review(whole):
    out, report = whole
    queue = read_queue(out)
    assert queue.problems == ()
    assert len(queue.items) == report.review > 0
    assert all(item.why and item.file.startswith("images/") for item in queue.items.values())
    proven = {
        (r.file_name, text)
        for r in read_annotations(out / "annotations.json")
        for text in r.simple + r.complex
    }
    assert not proven & {(item.file.removeprefix("images/"), item.text) for item in queue.items.values()}


def test_pictures_are_links_and_nothing_is_left_behind(whole, folder):
    out, report = whole
    assert sorted(p.name for p in out.iterdir()) == [
        "annotations.json", "contact-sheet.png", "images", "report.json", "review.jsonl",
    ]  # fmt: skip
    for picture in (out / "images").iterdir():
        assert picture.samefile(folder / "images" / picture.name)
    assert InstructReport.read(out / "report.json") == report


def test_the_same_files_however_the_work_is_shared_out(whole, folder, tmp_path):
    instruct(config(folder), tmp_path / "two", run=in_processes(2))
    backwards = lambda work, numbers: one_by_one(work, numbers[::-1])  # noqa: E731
    instruct(config(folder), tmp_path / "backwards", run=backwards)
    assert contents(tmp_path / "two") == contents(tmp_path / "backwards") == contents(whole[0])


def test_other_seeds_and_levels_write_others(whole, folder, tmp_path):
    report = instruct(config(folder, seed=1, levels=("simple",)), tmp_path / "other")
    assert set(report.level) == {"simple"}
    assert contents(tmp_path / "other")["annotations.json"] != contents(whole[0])["annotations.json"]


def test_kill_9_and_going_on(whole, folder, tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from sam3i_edge.shards.processes import in_processes
        from sam3i_edge.data.instruct.run import instruct
        from sam3i_edge.data.instruct.shards import InstructConfig

        stored = 0

        def tell(words, share):
            global stored
            stored += " of " in words
            if stored == 3:  # told before the first, and after each
                os.kill(os.getpid(), signal.SIGKILL)

        config = InstructConfig(source=sys.argv[1], vocabulary="shapes", per_image=6, review=1, shard=2)
        instruct(config, sys.argv[2], run=in_processes(2), progress=tell)
    """)
    out = tmp_path / "killed"
    root = Path(sam3i_edge.__file__).parents[1]
    killed = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(out)],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    kept = sorted((out / ".unfinished").glob("*.jsonl"))
    assert len(kept) == 2
    times = [path.stat().st_mtime_ns for path in kept]
    done = []

    def told(work, numbers):
        done.extend(numbers)
        assert [path.stat().st_mtime_ns for path in kept] == times
        return one_by_one(work, numbers)

    instruct(config(folder), out, run=told)
    assert len(done) == 2  # of four shards; none is done twice
    assert contents(out) == contents(whole[0])


def test_a_full_disk_in_the_middle_ends_in_one_line_and_goes_on(whole, folder, tmp_path, monkeypatch):
    writes = []

    def full(path, content):
        writes.append(path)
        if len(writes) == 4:  # the settings, two shards, and then no more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        files.write_whole(path, content)

    monkeypatch.setattr(run_module, "write_whole", full)
    with pytest.raises(DataError, match=r"No space left on device.*: make room, the same command goes on"):
        instruct(config(folder), tmp_path / "out")
    assert not (tmp_path / "out" / "annotations.json").exists()
    monkeypatch.undo()
    instruct(config(folder), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole[0])


def test_a_finished_folder_is_left_alone(whole, folder):
    out, report = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert instruct(config(folder), out) == report
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, r"another run \(seed 0 against 3, kept against given\): name another folder"),
        ({"per_image": 5}, r"per_image 6 against 5"),
        ({"vocabulary": "tabletop"}, r"vocabulary '[0-9a-f]{64}' against '[0-9a-f]{64}'"),
    ],
)
def test_a_folder_of_another_run_is_refused(whole, folder, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        instruct(replace(config(folder), **change), whole[0])

    def stopped(config, numbers):
        raise DataError("stopped")

    with pytest.raises(DataError, match="stopped"):
        instruct(config(folder), tmp_path / "begun", run=stopped)
    message = message.replace(r"another run", "an unfinished run of other settings")
    with pytest.raises(DataError, match=message):
        instruct(replace(config(folder), **change), tmp_path / "begun")


def test_a_folder_of_another_source_is_refused(whole, tmp_path, write_scene_folder):
    other = write_scene_folder(tmp_path / "other", PICTURES, seed=4)
    with pytest.raises(DataError, match=r"another run \(source '[0-9a-f]{64}' against"):
        instruct(config(other), whole[0])


def test_a_folder_that_holds_something_else_is_refused(folder, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="is not empty; name a new folder"):
        instruct(config(folder), tmp_path)
    with pytest.raises(DataError, match=r"notes\.txt is a file; name a folder"):
        instruct(config(folder), tmp_path / "notes.txt")


def test_two_at_once_are_refused(folder, tmp_path):
    code = "from sam3i_edge.data.instruct.run import instruct; import sys\n" + textwrap.dedent("""
        from sam3i_edge.data.instruct.shards import InstructConfig
        from sam3i_edge.errors import DataError
        try:
            instruct(InstructConfig(source=sys.argv[1], vocabulary="shapes"), sys.argv[2])
        except DataError as error:
            print(error)
    """)
    said = []

    def meanwhile(config, numbers):
        environment = {**os.environ, "PYTHONPATH": str(Path(sam3i_edge.__file__).parents[1])}
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / "out")]
        said.append(subprocess.check_output(command, env=environment, text=True, timeout=120))
        return one_by_one(config, numbers)

    instruct(config(folder), tmp_path / "out", run=meanwhile)
    assert "another process writes" in said[0]


def test_a_worker_that_dies_is_told_and_the_run_goes_on(whole, folder, tmp_path):
    def kill(words, share):
        if " second" in words:  # told after the first shard
            for worker in multiprocessing.active_children():
                worker.kill()

    with pytest.raises(DataError, match="a process that did the work has died: was it killed"):
        instruct(config(folder, shard=1), tmp_path / "out", run=in_processes(1), progress=kill)
    assert list((tmp_path / "out" / ".unfinished").glob("*.jsonl"))
    instruct(config(folder, shard=1), tmp_path / "out")
    written, wanted = contents(tmp_path / "out"), contents(whole[0])
    assert written.pop("report.json") != wanted["report.json"]  # of another shard size
    assert written.items() < wanted.items()


def test_pictures_that_cannot_be_used_are_counted(folder, tmp_path, write_scene_folder):
    scenes = write_scene_folder(tmp_path / "scenes", 4)
    (scenes / "images" / "000.png").unlink()
    (scenes / "images" / "001.png").write_bytes(b"no picture")
    (scenes / "images" / "002.png").write_bytes((folder / "images" / "000.png").read_bytes()[:300])
    report = instruct(config(scenes), tmp_path / "out")
    assert report.pictures == 1
    assert report.left_out_count == 2
    assert "001.png" in report.left_out[0]
    assert any(note.startswith("pictures missing, left out: 1 (000.png)") for note in report.notes)
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["003.png"]


def test_categories_that_no_vocabulary_knows_are_counted_and_asked_for_by_name(folder, tmp_path):
    report = instruct(replace(config(folder), vocabulary="coco"), tmp_path / "out")
    assert any("categories unknown to the vocabulary coco" in note for note in report.notes)
    assert report.level["concept"] > 0


def test_nothing_that_can_be_used_is_an_error(tmp_path, write_scene_folder):
    scenes = write_scene_folder(tmp_path / "scenes", 1)
    (scenes / "images" / "000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture could be used: .*000\.png"):
        instruct(config(scenes), tmp_path / "out")


def test_a_picture_of_another_size_is_left_out(tmp_path, write_scene_folder):
    scenes = write_scene_folder(tmp_path / "scenes", 2)
    lines = [json.loads(line) for line in (scenes / "scenes.jsonl").read_text().splitlines()]
    small = write_scene_folder(tmp_path / "small", 1, size=(64, 80))
    (scenes / "images" / "000.png").write_bytes((small / "images" / "000.png").read_bytes())
    report = instruct(config(scenes), tmp_path / "out")
    assert report.left_out == ["000.png is 80 x 64 px, its annotations say 128 x 96"]
    assert len(lines) == 2


def test_a_source_without_files_has_its_pictures_written(folder, tmp_path, monkeypatch):
    source = open_source(folder, SHAPES)

    class Inside:
        """The same scenes, with their pixels in them."""

        path, folder, notes = source.path, None, source.notes

        def __len__(self):
            return len(source)

        def __getattr__(self, name):
            return getattr(source, name)

        def scene(self, number):
            scene = source.scene(number)
            return replace(scene, image=np.array(scene.pixels()))

    monkeypatch.setattr("sam3i_edge.data.instruct.shards.open_source", lambda *_, **__: Inside())
    instruct(config(folder), tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == PICTURES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ("simple", "simple")}, r"levels must be some of concept, simple, complex, each once"),
        ({"levels": ()}, "levels must be some of"),
        ({"levels": ("easy",)}, "easy"),
        ({"per_image": 0}, r"per_image must be 1 to 1,000, got 0"),
        ({"review": -1}, "review must be 0 to 1,000, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_settings(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        config(folder, **settings)
