import json
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import read_annotations, write_annotations
from sam3i_edge.masks import rle

WORDS = "the thing in the corner"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6), "white").save(tmp_path / "images" / "a.png")
    mask = np.zeros((6, 8), bool)
    mask[:2, :3] = True
    line = {
        "id": "one", "file": "images/a.png", "size": [6, 8], "text": WORDS, "level": "complex",
        "granularity": "one", "targets": [rle.encode(mask)], "others": [], "why": "", "form": "region",
    }  # fmt: skip
    (tmp_path / "review.jsonl").write_text(json.dumps(line) + "\nnot json\n")
    write_annotations(tmp_path / "annotations.json", [])
    return tmp_path


def _decide(url, body):
    page, _, token = url.partition("#")
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{page}decision", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_serves_until_interrupted_and_applies(folder, capsys):
    command = [sys.executable, "-m", "sam3i_edge", "review", str(folder), "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # some shells have it ignored
    ) as process:
        served = json.loads(process.stdout.readline())
        assert served["undecided"] == 1
        assert _decide(served["url"], {"id": "one", "decision": "accept"})["decision"] == "accept"
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "review.jsonl, line 2" in notes
    assert "1 accepted, 0 mended, 0 rejected, 0 left" in notes
    assert main(["review", str(folder), "--apply", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == 1
    (record,) = read_annotations(folder / "annotations.json")
    assert record.complex == [WORDS]
    assert record.masks().sum() == 6


def test_what_was_decided_stays_after_a_kill(folder, capsys):
    command = [sys.executable, "-m", "sam3i_edge", "review", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        url = json.loads(process.stdout.readline())["url"]
        _decide(url, {"id": "one", "decision": "mend", "text": "the corner", "targets": []})
        process.kill()
    assert main(["review", str(folder), "--apply"]) == 0
    assert "0 accepted and 1 mended" in capsys.readouterr().out
    assert read_annotations(folder / "annotations.json")[0].granularity == "none"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{}", "--apply", "--port", "80"], 2, "leave out --port"),
        (["{}/images"], 1, "instruct"),
        (["{}/none"], 1, "no folder"),
        (["{}", "--port", "70000"], 2, "65535"),
    ],
)
def test_wrong_usage_is_one_line(folder, capsys, arguments, code, words):
    assert main(["review", *(argument.format(folder) for argument in arguments)]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
