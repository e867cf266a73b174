"""Tests of the command: what it refuses, and how it goes on after it was stopped."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import generate
import numpy as np
import pytest

HERE = Path(generate.__file__).parent


class Drawn:
    """A renderer that is fast: object 0 fills the left half of every picture; nothing is seen in some."""

    rendered: ClassVar[list[int]] = []
    empty: ClassVar[set[int]] = set()

    def __init__(self, catalogue, *, held_out, size):
        self.size = size

    def render(self, setting):
        self.rendered.append(setting.seed)
        identities = np.full((self.size, self.size), -1)
        if setting.seed not in self.empty:
            identities[:, : self.size // 2] = 0
        picture = np.full((self.size, self.size, 3), 90, np.uint8)
        return picture, identities, np.full(len(setting.objects), 0.5)

    def close(self):
        pass


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setitem(sys.modules, "drawn", SimpleNamespace(Drawn=Drawn))
    monkeypatch.setitem(generate._RENDERERS, "mujoco", ("drawn", "Drawn", "nothing to do"))
    monkeypatch.setattr(generate, "_SHARD", 3)
    Drawn.rendered, Drawn.empty = [], set()
    return Drawn


def run(out, *more):
    return generate.main([str(out), "--size", "32", "--workers", "1", *map(str, more)])


def scenes(out):
    return [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]


def test_a_full_disk_stops_in_a_line_and_the_same_command_goes_on(fast, tmp_path, monkeypatch, capsys):
    write, left = Path.write_bytes, [5]

    def full_after_five(path, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_after_five)
    assert run(tmp_path, "--count", 9) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("stopped: scenes 3 to 5: [Errno 28] No space left")
    assert said.endswith("the same command goes on")
    assert not (tmp_path / "scenes.jsonl").exists()
    monkeypatch.setattr(Path, "write_bytes", write)
    fast.rendered.clear()
    assert run(tmp_path, "--count", 9) == 0
    assert fast.rendered == [3, 4, 5, 6, 7, 8]  # the shard that was whole is not rendered again
    assert [line["seed"] for line in scenes(tmp_path)] == list(range(9))
    assert all((tmp_path / "images" / line["file"]).stat().st_size for line in scenes(tmp_path))


def test_scenes_with_nothing_visible_are_left_out_and_counted(fast, tmp_path, capsys):
    fast.empty = {1, 4}
    assert run(tmp_path, "--count", 6) == 0
    assert [line["seed"] for line in scenes(tmp_path)] == [0, 2, 3, 5]
    assert "4 scenes, 2 with nothing visible were left out" in capsys.readouterr().out


def test_a_larger_count_goes_on_behind_a_smaller_one(fast, tmp_path):
    run(tmp_path, "--count", 4)
    assert run(tmp_path, "--count", 8) == 0
    assert [line["seed"] for line in scenes(tmp_path)] == list(range(8))


def test_what_is_wanted_often_reaches_the_scene(fast, tmp_path, monkeypatch):
    asked, draw = [], generate.draw
    monkeypatch.setattr(
        generate, "draw", lambda *a, often, **k: asked.append(often) or draw(*a, often=often, **k)
    )
    run(tmp_path, "--count", 1, "--often", "fork", "spoon")
    assert asked == [["fork", "spoon"]]


def test_a_folder_made_otherwise_is_refused(fast, tmp_path, capsys):
    run(tmp_path, "--count", 1)
    for more, said in (
        (["--held-out"], "held_out False, not True"),
        (["--size", "48"], "size 32, not 48"),
        (["--often", "fork", "knife"], "often of 0 names, not of 2 names"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path, "--count", 1, *more)
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--count", "0"], "--count and --workers are at least 1"),
        (["--first", "-1"], "--first at least 0"),
        (["--size", "8"], "--size 32 to 2048"),
        (["--often", "forks"], "invalid choice: 'forks'"),
        (["--meshes", "nowhere"], "nowhere: none of BlendSwap-CC-0.sh3f"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_made(tmp_path, more, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        generate.main([str(tmp_path / "out"), *more])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_egl_the_debian_packages_are_named(tmp_path):
    command = [sys.executable, str(HERE / "generate.py"), str(tmp_path), "--count", "1", "--workers", "1"]
    no_driver = {**os.environ, "MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": os.devnull}
    done = subprocess.run(command, env=no_driver, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the renderer mujoco does not start" in done.stderr
    assert "apt install libegl1 libegl-mesa0 libgl1-mesa-dri" in done.stderr
    assert "Traceback" not in done.stderr
