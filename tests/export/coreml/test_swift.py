"""The Swift package: its types checked against stubs of Apple's frameworks, its text run against Python's.

It needs a Swift compiler: `swiftc` on PATH, or a command in SWIFTC whose last word is the compiler, and whose
others run a program where that runs. `scripts/debian_swift.sh` fetches one and prints such a command.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.errors import InstructionError
from sam3i_edge.levels import route
from sam3i_edge.pipeline.instruction import check_instruction, clean

pytest.importorskip("coremltools")

from sam3i_edge.export.coreml.swift_package import configuration

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "export/coreml/swift/Sources/SAM3I"
STUBS = Path(__file__).with_name("swift")
MODULES = (
    "CoreGraphics",
    "ImageIO",
    "CoreVideo",
    "VideoToolbox",
    "Vision",
    "CoreML",
)  # each imports earlier ones
TEXT = ("Configuration", "Instruction", "Levels", "Tokenizer")
COUNT = 4_000
RAW = [
    "Every  LARGE square", " the \u201cred star\u201d ", "(the ring)", "'quoted' words, here;",
    "!?", "[a star]!", "what stands for love?", "the dog\u2019s tail \u2014 please", "x" * 3000,
    "\u0130stanbul", "...", "- the star -", "the star, the ring and the circle " * 20,
    "\u00e9te\u0301", "3 of 10", "show me the one with a hole", "the thing used for cutting",
    "the piece of cake", "nearest star", "the star nearest to the ring", "which one",
    "all of the circles", "the biggest of all", "a shape taller than the star",
    "where is the red-hot pan",
]  # fmt: skip


@pytest.fixture(scope="module")
def swiftc() -> list[str]:
    command = shlex.split(os.environ.get("SWIFTC", "swiftc"))
    if shutil.which(command[0]) is None:
        pytest.skip("needs a Swift compiler: make swift-test fetches one; or a command in SWIFTC")
    return command


def run(*command: object, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_types_are_right(swiftc, tmp_path):
    """Against stubs of the names that it uses; the example is parsed alone."""
    for name in MODULES:
        module = [
            "-emit-module",
            "-parse-as-library",
            "-module-name",
            name,
            "-o",
            tmp_path / f"{name}.swiftmodule",
        ]
        run(*swiftc, *module, "-I", tmp_path, STUBS / f"{name}.swift")
    files = [*sorted(SOURCES.glob("*.swift")), STUBS / "BundleModule.swift"]
    check = [*swiftc, "-typecheck", "-swift-version", "5", "-module-name", "SAM3I", "-I", tmp_path]
    assert "warning:" not in run(*check, *files).replace("libc not found", "")
    run(*swiftc, "-parse", ROOT / "export/coreml/swift/Examples/CameraView.swift")
    wrong = tmp_path / "Wrong.swift"
    wrong.write_text("import CoreML\nfunc wrong(_ model: MLModel) -> Int { model.modelDescription }\n")
    done = subprocess.run([*map(str, [*check, *files, wrong])], capture_output=True, text=True, check=False)
    assert "cannot convert return expression" in done.stderr


@pytest.mark.slow
def test_ids_and_levels_are_pythons(swiftc, tmp_path):
    """The bundled model's tokenizer and configuration, on texts of every kind, and as users write them."""
    bundle = Bundle.open(find_bundle("sam3i-nano"))
    manifest = bundle.manifest
    content = configuration(manifest, {"detector": "Detector"}, precision="fp16")
    (tmp_path / "sam3i.json").write_text(json.dumps(content), encoding="utf-8")
    shutil.copyfile(bundle.file(manifest.tokenizer.file), tmp_path / "tokenizer.json")
    files = [*(SOURCES / f"{name}.swift" for name in TEXT), STUBS / "main.swift"]
    run(*swiftc, "-wmo", "-o", tmp_path / "text", *files)
    tokenizer, texts = bundle.tokenizer(), [clean(text) for text in _texts(COUNT)] + RAW
    lines = "".join(json.dumps([text]) + "\n" for text in texts)
    told = run(*swiftc[:-1], tmp_path / "text", tmp_path, input=lines, encoding="utf-8")
    answers = [json.loads(line) for line in told.splitlines()]
    assert len(answers) == len(texts)
    different = []
    for text, answer in zip(texts, answers, strict=True):
        try:
            ids, cut = tokenizer.encode(text)
            wanted = (ids.tolist(), cut, route(check_instruction(text)), "")
        except InstructionError as error:
            wanted = ([], 0, "", str(error))
        found = (answer["ids"], answer["cut"], answer["level"], answer["error"])
        if found != wanted:
            different.append((text, found, wanted))
    assert not different, f"{len(different)} of {len(texts)}: {different[:3]}"


def _texts(count: int) -> list[str]:
    """Texts as those that libsam3i is asked."""
    spec = importlib.util.spec_from_file_location("native_texts", ROOT / "tests/native/texts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.texts(count, 11)
