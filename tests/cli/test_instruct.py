from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import read_annotations
from sam3i_edge.masks import rle
from sam3i_edge.measure import runner
from sam3i_edge.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, write_scene_folder):
    return write_scene_folder(tmp_path_factory.mktemp("cli-instruct") / "scenes", 4)


@pytest.fixture(scope="module")
def written(tmp_path_factory, scenes):
    out = tmp_path_factory.mktemp("cli-instruct") / "out"
    assert main(["instruct", str(scenes), "-o", str(out), "--vocabulary", "shapes"]) == 0
    return out


def test_it_says_what_it_wrote(written, scenes, capsys):
    arguments = ["instruct", str(scenes), "-o", str(written), "--vocabulary", "shapes"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    records = read_annotations(written / "annotations.json")
    assert report["pictures"] == len({record.file_name for record in records}) == 4
    assert report["instructions"] == sum(report["level"].values()) > 30
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{report['instructions']:,} instructions for 4 pictures; {report['review']:,} wait" in printed
    assert any(
        line.split() == ["level", "simple", str(report["level"]["simple"])] for line in printed.splitlines()
    )


def test_evaluate_reads_it(written, tiny_bundle, capsys):
    assert main(["evaluate", str(tiny_bundle.root), "--data", str(written), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4


def test_train_reads_it(written, float_bundle, tmp_path, light_training):
    light_training()
    run = str(tmp_path / "run")
    arguments = ["train", "--bundle", str(float_bundle.root), "--data", str(written), "--out", run]
    assert main([*arguments, "--stage", "3", "--steps", "2", "-d", "cpu"]) == 0
    assert RunFolder(tmp_path / "run").load().stage == 1


@pytest.mark.slow
def test_benchmark_reads_it(written, tiny_bundle, tmp_path, monkeypatch):
    small = {"queries": 8, "seconds": 0, "pairs": 6, "starts": 1, "scenes": 2}
    monkeypatch.setitem(runner.BUDGETS, "quick", small)
    fast = ["--threads", "1", "--level", "simple", "--device", "cpu", "-o", str(tmp_path / "benchmark")]
    assert main(["benchmark", "-m", str(tiny_bundle.root), *fast, "--data", str(written)]) == 0


def test_coco_instances_are_sent_here_and_read(scenes, tmp_path, tiny_bundle, float_bundle, capsys):
    """What evaluate and train cannot read they send here, and it can be read then."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "a.png").write_bytes((scenes / "images" / "000.png").read_bytes())
    mask = np.zeros((96, 128), bool)
    mask[20:50, 30:90] = True
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 128, "height": 96}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1800, "bbox": [30, 20, 60, 30],
             "segmentation": {"size": [96, 128], "counts": rle.counts_of(mask).tolist()}},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "toaster"}],
    }  # fmt: skip
    (data / "annotations.json").write_text(json.dumps(coco))
    for command in (
        ["evaluate", str(tiny_bundle.root), "--data", str(data)],
        ["train", "--bundle", str(float_bundle.root), "--data", str(data), "--out", str(tmp_path / "run")],
    ):
        assert main(command) == 1
        assert "'sam3i-edge instruct FILE -o DIR' writes them" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main(["instruct", str(data / "annotations.json"), "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["level"]["concept"] > 0
    texts = [text for record in read_annotations(out / "annotations.json") for text in record.concept]
    assert any("dog" in text.lower() for text in texts)
    assert main(["evaluate", str(tiny_bundle.root), "--data", str(out)]) == 0


@pytest.fixture
def references(scenes, tmp_path):
    """RefCOCO's two files, of the drawn scenes; their colours are in the pixels alone."""
    lines = [json.loads(line) for line in (scenes / "scenes.jsonl").read_text().splitlines()]
    categories = sorted({thing["category"] for line in lines for thing in line["objects"]})
    things = [(number, thing) for number, line in enumerate(lines) for thing in line["objects"]]
    coco = {
        "images": [
            {"id": number, "file_name": line["file"], "height": line["size"][0], "width": line["size"][1]}
            for number, line in enumerate(lines)
        ],
        "annotations": [
            {"id": i, "image_id": number, "category_id": categories.index(thing["category"]),
             "segmentation": thing["mask"]}
            for i, (number, thing) in enumerate(things)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories)],
    }  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    said = [
        {"ref_id": i, "ann_id": i, "image_id": number, "split": "val" if number else "train",
         "sentences": [{"sent": f"own words {i}"}]}
        for i, (number, _) in enumerate(things)
    ]  # fmt: skip
    (tmp_path / "refs.json").write_text(json.dumps(said))
    return tmp_path / "refs.json"


def test_refcoco_keeps_its_sentences_and_pixels_tell_colours(references, scenes, tmp_path, capsys):
    texts = {}
    for name, more in (("plain", []), ("colours", ["--pixel-colors"])):
        arguments = ["instruct", str(references), "-o", str(tmp_path / name), "--vocabulary", "shapes", *more]
        arguments += ["--instances", str(tmp_path / "coco.json"), "--images", str(scenes / "images")]
        assert main([*arguments, "--split", "val", "--per-image", "40"]) == 0
        records = read_annotations(tmp_path / name / "annotations.json")
        assert len({record.file_name for record in records}) == 3, "one of four is no part of the split"
        texts[name] = [text for r in records for text in (*r.concept, *r.simple, *r.complex)]
        assert sum(text.startswith("own words") for text in texts[name]) > 6
    colour = re.compile(r"\b(red|green|blue|yellow|purple|orange|white|black)\b")
    assert not [text for text in texts["plain"] if colour.search(text)]
    assert [text for text in texts["colours"] if colour.search(text)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--levels", "simple,hard"], 2, "hard"),
        (["--per-image", "0"], 2, "per-image"),
        (
            ["--vocabulary", "none"],
            1,
            "vocabulary none: No such file or directory; give one of shapes, tabletop",
        ),
        (["--split", "val"], 2, "split is for RefCOCO"),
        (["--instances", "a.json"], 2, "instances are for RefCOCO"),
        (["--workers", "2", "--ray", "auto"], 2, "give one of --workers, --ray and --llm-url"),
        (["--llm-url", "http://127.0.0.1:9/v1"], 2, "--llm-url and --llm-model belong together"),
    ],
)
def test_wrong_usage_is_one_line(scenes, tmp_path, capsys, arguments, code, message):
    assert main(["instruct", str(scenes), "-o", str(tmp_path / "out"), *arguments]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_none_is_one_line(tmp_path, capsys):
    assert main(["instruct", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().err
    assert "holds no scenes.jsonl, annotations.json or" in printed
    assert printed.count("\n") == 1


class _NotFound(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_error(404)

    def log_message(self, *_):
        """Tests are quiet."""


def test_a_language_model_that_is_not_there_leaves_what_is_proven(written, scenes, tmp_path, capsys):
    with HTTPServer(("127.0.0.1", 0), _NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments = ["instruct", str(scenes), "-o", str(tmp_path / "out"), "--vocabulary", "shapes", "--json"]
        url = f"http://127.0.0.1:{server.server_port}/v1"
        assert main([*arguments, "--llm-url", url, "--llm-model", "none"]) == 0
        server.shutdown()
    printed = capsys.readouterr()
    assert json.loads(printed.out)["waiting"] > 0
    assert "language model: 0 calls and 0 tokens so far" in printed.err
    assert "instructions wait for it (http://127.0.0.1" in printed.err
    assert "is the model's name right" in printed.err
    found = [read_annotations(out / "annotations.json") for out in (tmp_path / "out", written)]
    assert found[0] == found[1]


class _NoIdea(_NotFound):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "no idea"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "none", "choices": [choice]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_answers_that_cannot_be_read_are_told(scenes, tmp_path, capsys):
    with HTTPServer(("127.0.0.1", 0), _NoIdea) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments = ["instruct", str(scenes), "-o", str(tmp_path / "out"), "--vocabulary", "shapes"]
        url = f"http://127.0.0.1:{server.server_port}/v1"
        assert main([*arguments, "--llm-url", url, "--llm-model", "none"]) == 0
        server.shutdown()
    assert "of its answers could not be read: " in " ".join(capsys.readouterr().err.split())
