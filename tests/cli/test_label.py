from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sam3i_edge.cli.app import main


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(2)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (30, 44, 3), np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "c.png").write_bytes(b"no picture")
    (tmp_path / "asked.txt").write_bytes(b"\xef\xbb\xbfstar\n\nevery large square\n")
    return tmp_path


@pytest.fixture
def run(tiny_bundle, photos, capsys):
    def run(*arguments, code=0):
        command = [
            "label",
            "photos",
            "--instructions",
            "asked.txt",
            "--model",
            str(tiny_bundle.root),
            *arguments,
        ]
        assert main(command) == code
        return capsys.readouterr()

    return run


def test_it_says_what_it_wrote_and_goes_on(run, photos):
    shown = run("-o", "found.json", "-t", "0.4", "--json")
    report = json.loads(shown.out)
    assert (report["pictures"], list(report["labels"])) == (2, ["star", "every large square"])
    assert sum(report["labels"].values()) > 0
    assert "c.png" in report["broken"]
    assert "c.png" in shown.err
    shown = run("-o", "found.json", "-t", "0.4", "--review")
    assert shown.out.startswith("2 pictures labelled, 1 could not be read;")
    assert "coco written to found.json" in shown.err
    assert "'sam3i-edge review found.json.labels' shows what is uncertain" in shown.err
    assert main(["review", "found.json.labels", "--apply", "--json"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "x.json", "--workers", "2", "--ray", "auto"], 2, "give one of them"),
        (["-o", "x.json", "-f", "voc"], 2, "unknown format 'voc'"),
        (["-o", "none/x.json"], 1, "make the folder 'none' first"),
        (["-o", "x.json", "--level", "hard"], 2, "hard"),
    ],
)
def test_wrong_usage_is_one_line(run, photos, arguments, code, message):
    before = sorted(photos.rglob("*"))
    shown = run(*arguments, code=code)
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert sorted(photos.rglob("*")) == before
