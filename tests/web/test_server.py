"""The page's server over HTTP, and the folder that another server may host."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

import sam3i_edge
from sam3i_edge import Result, Segmenter
from sam3i_edge.cli.app import main
from sam3i_edge.errors import ArtifactError
from sam3i_edge.loopback import is_loopback
from sam3i_edge.web import server as web_server
from sam3i_edge.web.server import WebServer
from sam3i_edge.web.site import Site

STATIC = Path(web_server.__file__).with_name("static")
WASM = "ort-wasm-simd-threaded.wasm.gz"


@pytest.fixture(scope="module")
def segmenter(tiny_bundle):
    with Segmenter(tiny_bundle.root) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(serve, segmenter, example):
    with serve(Site(None, [example]), segmenter) as served:
        yield served


def _ask(server, path, body=None, **headers):
    """Status, headers and body of an answer; a header None is left out."""
    given = {"Host": server.hosts[0], "Authorization": f"Bearer {server.token}"} | headers
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
    if body is not None and "Content_Length" not in given:
        given["Content_Length"] = str(len(body))
    for name, value in given.items():
        if value is not None:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    answer = connection.getresponse()
    result = answer.status, answer.headers, answer.read()
    connection.close()
    return result


def _segment(server, **question):
    asked = {"instruction": "star", **question}
    status, headers, body = _ask(server, "/segment", json.dumps(asked).encode())
    return status, headers["X-Error"], body.decode()


def test_answers_are_the_segmenters(server, segmenter, example):
    info = json.loads(_ask(server, "/info")[2])
    assert (info["model"], info["maxBoxes"], info["levels"]) == ("tiny", 0, ["concept", "simple", "complex"])
    scene = json.loads(_ask(server, "/scene", example.png)[2])
    assert (scene["width"], scene["height"]) == (448, 320)
    status, _, body = _segment(server, scene=scene["scene"], level="simple", threshold=0.1)
    wanted = segmenter.segment(example.png, "star", level="simple", threshold=0.1)
    found = Result.from_json(body)
    assert status == 200
    assert len(found) == len(wanted) > 0
    assert found.mask_rle == wanted.mask_rle


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/", None, {"Authorization": None}, 200),
        ("/index.js", None, {"Authorization": None}, 200),
        ("/info", None, {"Authorization": None}, 401),
        ("/scene", b"x", {"Authorization": None}, 401),
        ("/segment", b"{}", {"Authorization": "Bearer wrong"}, 401),
        ("/", None, {"Host": "evil.example"}, 403),
        ("/info", None, {"Origin": "http://evil.example"}, 403),
        ("/scene", b"x", {"Origin": "null"}, 403),
        ("/../server.py", None, {}, 404),
        ("/%2e%2e/server.py", None, {}, 404),
        ("/model/bundle.json", None, {}, 404),  # the model is not given away
        ("/index.js", b"x", {}, 404),
        ("/scene", b"no picture", {}, 400),
        ("/scene", b"", {}, 400),
        ("/scene", b"x", {"Content_Length": str(65 * 1024 * 1024)}, 413),
        ("/segment", b"x" * 65_537, {}, 413),
        ("/segment", b"{", {}, 400),
    ],
)
def test_what_may_not_be_asked_is_refused(server, path, body, headers, status):
    assert _ask(server, path, body, **headers)[0] == status


def test_wrong_questions_say_what_is_wrong(server, example):
    number = json.loads(_ask(server, "/scene", example.png)[2])["scene"]
    assert _segment(server, scene=number, instruction=" ")[:2] == (400, "InstructionError")
    assert _segment(server, scene=number, threshold=2)[:2] == (400, "ValueError")
    assert _segment(server, scene=number, level="hard")[:2] == (400, "ValueError")
    assert _segment(server, scene=number, boxes=[[0, 0, 9, 9]])[:2] == (400, "ValueError")
    for _ in range(4):
        _ask(server, "/scene", example.png)
    status, error, message = _segment(server, scene=number)
    assert (status, error) == (410, "ImageError")
    assert "let go" in message


def test_one_is_answered_at_a_time_and_few_wait(server, example, monkeypatch):
    monkeypatch.setattr(server.answers, "_places", threading.BoundedSemaphore(1))
    begun, finish, encode = threading.Event(), threading.Event(), server.answers._segmenter.encode

    def slow(picture):
        begun.set()
        finish.wait(20)
        return encode(picture)

    monkeypatch.setattr(server.answers._segmenter, "encode", slow)
    first = threading.Thread(target=_ask, args=(server, "/scene", example.png))
    first.start()
    begun.wait(20)
    assert _ask(server, "/scene", example.png)[0] == 503
    finish.set()
    first.join()
    assert _ask(server, "/scene", example.png)[0] == 200


def test_a_page_elsewhere_gets_no_frame_and_this_one_threads(server):
    headers = _ask(server, "/")[1]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_page_names_no_other_host():
    for name in ("index.html", "page.js", "page.css", "index.js", "sw.js"):
        assert b"http://" not in (STATIC / name).read_bytes()
        assert b"https://" not in (STATIC / name).read_bytes()


def test_the_wheels_share_is_small():
    sizes = {path.name: path.stat().st_size for path in STATIC.iterdir()}
    assert sizes.pop(WASM) < 14_000_000
    assert sum(sizes.values()) < 6_000_000


def test_the_package_has_the_wheels_version():
    package = Path(__file__).parents[2] / "web/package.json"
    assert json.loads(package.read_text())["version"] == sam3i_edge.__version__


def test_a_folder_to_host_holds_all_but_the_weights(tmp_path, tiny_bundle, example):
    folder = Site(tiny_bundle, [example]).write(tmp_path / "site")
    Site(tiny_bundle, [example]).write(folder)  # again
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"index.html", "site.json", WASM, "model/bundle.json", "examples/0.png"} <= names
    manifest = json.loads((folder / "model/bundle.json").read_text())
    assert {f"model/{name}" for name in manifest["files"]} <= names
    assert json.loads((folder / "site.json").read_text())["precisions"] == ["fp32"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("kept")
    with pytest.raises(ValueError, match="holds something else"):
        Site(tiny_bundle, []).write(tmp_path / "mine")


def test_a_bundle_that_no_browser_runs_is_refused(tiny_bundle):
    variant = tiny_bundle.manifest.variants["onnx-fp32"].model_copy(update={"runtime": "coreml"})
    manifest = tiny_bundle.manifest.model_copy(update={"variants": {"coreml-fp32": variant}})
    with pytest.raises(
        ArtifactError, match=r"no variant that a browser runs, it has coreml-fp32: .*--to onnx"
    ):
        Site(replace(tiny_bundle, manifest=manifest), [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "80"], "add --web or --server"),
        (["--web", "--host", "0.0.0.0"], "--host is of --server"),
        (["--web", "--device", "cpu"], "--device and --threads are of --server"),
        (["--server", "--out", "x"], "--out writes the page of --web"),
        (["--web", "--out", "x", "--open"], "choose one"),
        (["--server", "--host", "none.invalid"], "cannot be used"),
    ],
)
def test_wrong_usage_ends_with_2(arguments, message, capsys, tiny_bundle):
    assert main(["demo", "--model", str(tiny_bundle.root), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_taken_port_is_wrong_usage(server):
    with pytest.raises(ValueError, match="leave it out"):
        WebServer(server.site, port=server.server_port)


def test_the_command_writes_the_folder(tmp_path, tiny_bundle, capsys):
    folder = tmp_path / "site"
    assert main(["demo", "--web", "-m", str(tiny_bundle.root), "-o", str(folder), "--json"]) == 0
    assert "index.html" in json.loads(capsys.readouterr().out)["files"]
    assert len(list((folder / "examples").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--web"], ["--server"]])
def test_the_command_serves_until_it_is_interrupted(arguments, tiny_bundle):
    command = [sys.executable, "-m", "sam3i_edge", "demo", *arguments, "-m", str(tiny_bundle.root), "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that starts this test in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        address, _, token = json.loads(process.stdout.readline())["url"].partition("#")
        asked = urllib.request.Request(f"{address}info", headers={"Authorization": f"Bearer {token}"})
        if arguments == ["--server"]:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                assert json.load(answer)["model"] == "tiny"
        else:
            assert not token
            with urllib.request.urlopen(f"{address}model/bundle.json", timeout=20) as answer:
                assert json.load(answer)["name"] == "tiny"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False)],
)
def test_is_loopback(host, loopback):
    assert is_loopback(host) == loopback


def test_at_every_address_the_token_alone_decides(segmenter, example):
    with WebServer(Site(None, [example]), segmenter, host="0.0.0.0") as served:
        assert served.hosts is None
        assert served.url.startswith(f"http://127.0.0.1:{served.server_port}/#")
