"""What `@sam3i/web` refuses, keeps and lets go of, on tiny graphs."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil

import psutil
import pytest
from PIL import Image

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.web.site import Site

pytestmark = pytest.mark.slow

LOAD = """async (options) => {
    const {Segmenter} = await import("/index.js");
    try {
        globalThis.segmenter = await Segmenter.load("/model", options ?? {});
        return segmenter.info;
    } catch (error) {
        return `${error.name}: ${error.message}`;
    }
}"""
MEGABYTES = 1 << 20


@pytest.fixture
def tiny(serve, tiny_bundle):
    with serve(Site(tiny_bundle, [])) as server:
        yield server


@pytest.fixture
def page(library, tiny):
    return library(tiny)


@pytest.fixture
def changed(serve, library, tiny_bundle, tmp_path):
    """`changed(change)`: a page of the tiny bundle that `change(folder, manifest)` altered."""

    def opened(change):
        folder = shutil.copytree(tiny_bundle.root, tmp_path / "changed")
        manifest = json.loads((folder / "bundle.json").read_text())
        change(folder, manifest)
        (folder / "bundle.json").write_text(json.dumps(manifest))
        servers.append(serve(Site(Bundle.open(folder), [])))
        return library(servers[-1].__enter__())

    servers = []
    yield opened
    for server in servers:
        server.__exit__(None, None, None)


def _flip(folder, _):
    path = folder / "onnx-fp32/detector.onnx"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def test_a_flipped_byte_is_found(changed):
    found = changed(_flip).evaluate(LOAD)
    assert found.startswith("ArtifactError: /model/onnx-fp32/detector.onnx is not the file")


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(page):
    assert page.evaluate(LOAD)["model"] == "tiny"
    replaced = page.evaluate(
        """async () => {
            const cache = await caches.open("sam3i");
            const keys = (await cache.keys()).filter(({url}) => url.includes("detector.onnx"));
            for (const key of keys) await cache.put(key, new Response("damaged"));
            return keys.length;
        }"""
    )
    assert replaced == 1
    assert page.evaluate(LOAD)["model"] == "tiny"


def test_files_of_an_older_version_are_let_go(page):
    page.evaluate(LOAD)
    count = """async () => {
        const cache = await caches.open("sam3i");
        await cache.put("/model/old.onnx?sha256=00", new Response("old"));
        return (await cache.keys()).length;
    }"""
    before = page.evaluate(count)
    page.evaluate(LOAD)
    assert page.evaluate("async () => (await (await caches.open('sam3i')).keys()).length") == before - 1


def _as_int8(folder, manifest):
    manifest["variants"]["onnx-int8"] = {**manifest["variants"].pop("onnx-fp32"), "precision": "int8"}


def test_a_bundle_without_fp32_says_what_it_has(changed):
    page = changed(_as_int8)
    assert "has no variant onnx-fp32, it has int8: ask for one of these by name" in page.evaluate(LOAD)
    assert page.evaluate(LOAD, {"precision": "int8"})["precision"] == "int8"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maxBytes": 1000}, "ArtifactError: model tiny is"),
        ({"precision": "fp16"}, "ArtifactError: bundle tiny has no variant onnx-fp16"),
        ({"threads": 0}, "RangeError: threads must be 1 to 64"),
        ({"device": "webgpu"}, "RuntimeUnavailable: the worker"),  # not in the wheel
        ({"worker": "/none.js"}, "RuntimeUnavailable: the worker"),
    ],
)
def test_what_cannot_be_loaded_is_refused(page, options, message):
    assert page.evaluate(LOAD, options).startswith(message)


def test_one_thread_where_the_page_is_not_isolated(open_page, tiny):
    def bare(route):
        answer = route.fetch()
        headers = {key: value for key, value in answer.headers.items() if "origin" not in key}
        route.fulfill(response=answer, headers=headers)

    page = open_page("about:blank")
    page.route("**/LICENSES.txt", bare)
    page.goto(f"{tiny.address}LICENSES.txt")
    info = page.evaluate(LOAD)
    assert info["threads"] == 1
    assert any(
        note.startswith("one thread: this page is not cross-origin isolated") for note in info["notes"]
    )


def test_a_browser_without_simd_is_told(page):
    def without(route):
        answer = route.fetch()
        route.fulfill(response=answer, body="WebAssembly.validate = () => false;" + answer.text())

    page.route("**/worker.js", without)
    assert page.evaluate(LOAD).startswith("RuntimeUnavailable: this browser has no WebAssembly SIMD")


def test_a_picture_of_100_megapixels_is_refused(page):
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    page.evaluate(LOAD)
    found = page.evaluate(
        """async (png) => {
            const blob = await (await fetch(`data:image/png;base64,${png}`)).blob();
            return segmenter.encode(blob).catch(String);
        }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    assert found.startswith("ImageError: the picture is 10000 x 10000, 100 megapixels, at most 64")


def test_questions_are_answered_in_turn_and_of_frames_the_newest_is_taken(page):
    page.evaluate(LOAD)
    found = page.evaluate(
        """async () => {
            const frame = () => segmenter.encode(new ImageData(40, 30));
            const taken = await Promise.allSettled([frame(), frame(), frame(), frame()]);
            const scene = taken[3].value;
            const asked = await Promise.all(["star", "ring", "star"].map((text) => scene.segment(text)));
            for (let i = 0; i < 4; i++) await frame();
            return {
                taken: taken.map(({status, reason}) => reason?.name ?? status),
                asked: asked.map(({instruction, presence}) => [instruction, presence]),
                old: await scene.segment("star").catch(String),
                wrong: await (await frame()).segment("star", {boxes: [[0, 0, 1, 1]]}).catch(String),
            };
        }"""
    )
    assert found["taken"] == ["fulfilled", "Superseded", "Superseded", "fulfilled"]
    assert [text for text, _ in found["asked"]] == ["star", "ring", "star"]
    assert found["asked"][0] == found["asked"][2] != found["asked"][1]
    assert found["old"].startswith("ImageError: this picture was let go")
    assert found["wrong"] == "RangeError: model tiny takes no boxes: ask by an instruction alone"


def test_a_hidden_page_segments_no_frame(page):
    page.evaluate(LOAD)
    found = page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(64, 48), shown = document.createElement("canvas");
            let hidden = true, count = 0;
            Object.defineProperty(document, "hidden", {get: () => hidden});
            shown.getContext("2d").fillRect(0, 0, 9, 9);
            const video = Object.assign(document.createElement("video"), {muted: true});
            video.srcObject = shown.captureStream(20);
            await video.play();
            const ending = new AbortController();
            let saw;
            const first = new Promise((resolve) => { saw = resolve; });
            const over = (async () => {
                const {signal} = ending;
                for await (const {frame, result} of segmenter.stream(video, "star", {signal})) {
                    count++;
                    saw([frame.width, result.instruction]);
                }
            })();
            await new Promise((resolve) => setTimeout(resolve, 400));
            const meanwhile = count;
            hidden = false;
            document.dispatchEvent(new Event("visibilitychange"));
            const seen = await first;
            ending.abort();
            await over;
            return {meanwhile, seen};
        }"""
    )
    assert found == {"meanwhile": 0, "seen": [300, "star"]}


def test_memory_stays_flat_over_500_frames(page):
    page.evaluate(LOAD, {"threads": 1})  # threads of ONNX Runtime answer nobody who asks their memory
    work = """async (count) => {
        const canvas = new OffscreenCanvas(320, 240), context = canvas.getContext("2d");
        for (let i = 0; i < count; i++) {
            context.fillStyle = `hsl(${i * 7 % 360} 90% 50%)`;
            context.fillRect(i % 250, i % 150, 60, 45);
            const scene = await segmenter.encode(canvas);
            const {instances} = await scene.segment(`star ${i % 70}`, {threshold: 0.01});
            instances.forEach((one) => one.area);
        }
        gc();
    }"""

    def resident():
        for worker in page.workers:
            worker.evaluate("() => gc()")
        children = psutil.Process(os.getpid()).children(recursive=True)
        return sum(one.memory_info().rss for one in children if "--type=renderer" in " ".join(one.cmdline()))

    page.evaluate(work, 150)
    before = resident()
    page.evaluate(work, 500)
    assert resident() - before < 40 * MEGABYTES  # 500 frames of RGBA are 146 MB
