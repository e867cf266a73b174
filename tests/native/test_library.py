"""libsam3i, built here with every runtime whose headers are here: CTest, and answers that equal Python's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.writing import new_bundle

ROOT = Path(__file__).parents[2]
NANO = ROOT / "sam3i_edge/assets/sam3i-nano"
LOW = 0.05  # of random weights no score is high
CASES = (
    "nano-onnxruntime-fp32",
    "nano-openvino-fp32",
    "boxes-onnxruntime-fp32",
    "int8-onnxruntime-int8",
    "int8-openvino-int8",
)


def add_openvino(bundle: Bundle, folder: Path, precision: str) -> None:
    """Writes a bundle with graphs for OpenVINO beside those for ONNX Runtime."""
    from sam3i_edge.export.openvino.ir import write_ir

    # A copy: a new bundle links the files of its base, and onnx refuses to read linked ones.
    bundle = Bundle.open(shutil.copytree(bundle.root, folder / "source"))
    source = bundle.manifest.variants[f"onnx-{precision}"]
    with new_bundle(folder / "bundle", base=bundle) as made:
        (made.path / f"openvino-{precision}").mkdir()
        graphs = {name: f"openvino-{precision}/{name}.xml" for name in source.graphs}
        for name, path in graphs.items():
            write_ir(bundle.root / source.graphs[name], made.path / path, precision)
        variant = source.model_copy(update={"runtime": "openvino", "graphs": graphs})
        made.finish(variants={f"openvino-{precision}": variant})


@pytest.fixture(scope="session")
def nano(made_once) -> Path:
    """The bundled model for both runtimes."""
    return made_once("native-nano", lambda folder: add_openvino(Bundle.open(NANO), folder, "fp32")) / "bundle"


@pytest.fixture(scope="session")
def int8(made_once, quantized) -> Path:
    """A small model at int8 for both runtimes."""
    return made_once("native-int8", lambda folder: add_openvino(quantized.bundle, folder, "int8")) / "bundle"


def ctest(building, built: Path, fixtures: Path, *options: str) -> str:
    environment = os.environ | {"SAM3I_FIXTURES": str(fixtures)}
    return building.run("ctest", "--test-dir", built, "--output-on-failure", *options, env=environment)


def test_ctest(building, built, fixtures):
    """Masks and pixels, refusals, threads, and the header in C and without exceptions."""
    told = ctest(building, built, fixtures, "-E", "check_answers")
    assert "100% tests passed" in told
    assert "Skipped" not in told


@pytest.mark.parametrize("case", CASES)
def test_answers_are_pythons(building, built, fixtures, recorded, request, case):
    model, runtime, precision = case.split("-")
    if runtime not in building.runtimes():
        pytest.skip(f"needs the headers of {runtime}")
    bundle = fixtures / "tiny-boxes" if model == "boxes" else request.getfixturevalue(model)
    threshold, boxes = None if model == "nano" else LOW, 3 if model == "boxes" else 0
    recorded.record(
        fixtures / "answers",
        case,
        bundle,
        runtime=runtime,
        precision=precision,
        threshold=threshold,
        boxes=boxes,
    )
    environment = os.environ | {"SAM3I_FIXTURES": str(fixtures)}
    told = building.run(built / "tests/check_answers", case, env=environment)
    assert told.startswith("300 questions")
    assert " 0 failed" in told


def test_an_onnx_bundle_opens_in_openvino(building, built, fixtures, recorded):
    """Float graphs for ONNX Runtime, which OpenVINO reads as they are; quantized ones are refused."""
    if "openvino" not in building.runtimes():
        pytest.skip("needs openvino")
    picture, out = fixtures / "picture.ppm", fixtures / "overlay.png"
    write_ppm(picture, recorded)
    options = {"env": os.environ | {"SAM3I_RUNTIME": "openvino"}}
    told = building.run(built / "examples/segment", NANO, picture, "every shape", out, **options)
    assert "openvino" in told
    assert "onnx-fp32" in told
    assert out.read_bytes()[:4] == b"\x89PNG"


def write_ppm(path: Path, recorded) -> None:
    import numpy as np

    image = recorded.draw_scene(np.random.default_rng(1), (240, 320)).image
    path.write_bytes(b"P6 320 240 255\n" + image.tobytes())


@pytest.mark.parametrize(
    ("runtime", "words"), [("ONNXRUNTIME", "-DORT_ROOT=DIR"), ("OPENVINO", "-DOpenVINO_DIR=DIR")]
)
def test_what_is_missing_is_a_cmake_error(building, tmp_path, runtime, words):
    """A runtime that was asked for and is not there is said, with what to do."""
    building.configured(tmp_path / "none")
    nothing = ["-DCMAKE_DISABLE_FIND_PACKAGE_OpenVINO=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_onnxruntime=ON"]
    command = ["cmake", "-S", ROOT / "native", "-B", tmp_path / "some", f"-DSAM3I_{runtime}=ON", *nothing]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())


def test_an_installed_library_is_found_by_others(building, built, tmp_path):
    """`find_package(sam3i)` and pkg-config, from where `cmake --install` put it."""
    building.run("cmake", "--install", built, "--prefix", tmp_path / "prefix")
    source = tmp_path / "user"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(user CXX)\nfind_package(sam3i REQUIRED)\n"
        "add_executable(user user.cpp)\ntarget_link_libraries(user PRIVATE sam3i::sam3i)\n"
        "target_compile_features(user PRIVATE cxx_std_17)\n"
    )
    (source / "user.cpp").write_text(
        '#include <sam3i.hpp>\nint main() { return sam3i::Segmenter::open("nothing") ? 1 : 0; }\n'
    )
    building.run("cmake", "-S", source, "-B", tmp_path / "made", f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}")
    building.run("cmake", "--build", tmp_path / "made")
    building.run(tmp_path / "made/user")
    if shutil.which("pkg-config") is not None:
        moved = (tmp_path / "prefix").rename(tmp_path / "moved")
        (found,) = moved.rglob("sam3i.pc")
        environment = os.environ | {"PKG_CONFIG_PATH": str(found.parent)}
        flags = building.run("pkg-config", "--cflags", "--libs", "sam3i", env=environment).split()
        libraries = [Path(flag[2:]).resolve() for flag in flags if flag.startswith("-L")]
        program = tmp_path / "by-pkg-config"
        building.run(
            "c++", "-std=c++17", source / "user.cpp", *flags, f"-Wl,-rpath,{libraries[0]}", "-o", program
        )
        assert libraries[0].is_relative_to(moved)
        building.run(program)


def sanitized(building, folder: Path, kinds: str, *targets: str) -> Path:
    """A build folder with sanitizers, on ONNX Runtime."""
    found = building.runtimes()
    if "onnxruntime" not in found:
        pytest.skip("needs ONNX Runtime (ORT_ROOT, see scripts/ort_root.py)")
    options = [*building.QUICK, f"-DSAM3I_SANITIZE={kinds}", *found["onnxruntime"]]
    building.build(building.configured(folder, *options), *targets)
    return folder


@pytest.mark.slow
def test_sanitizers_find_nothing(building, fixtures, tmp_path):
    """Refusals, threads, masks and the header under the address and undefined-behaviour sanitizers."""
    programs = ("check_masks", "check_threads", "check_refusals", "c_only")
    build = sanitized(building, tmp_path / "build", "address,undefined", *programs)
    told = ctest(building, build, fixtures, "-R", "|".join(programs))
    assert f"100% tests passed, 0 tests failed out of {len(programs)}" in told


@pytest.mark.slow
def test_the_thread_sanitizer_finds_nothing(building, fixtures, tmp_path):
    build = sanitized(building, tmp_path / "build", "thread", "check_threads")
    suppressions = building.ROOT / "native" / "tests" / "tsan.supp"
    told = building.run(
        build / "tests" / "check_threads",
        env=os.environ | {"SAM3I_FIXTURES": str(fixtures), "TSAN_OPTIONS": f"suppressions={suppressions}"},
    )
    assert ", 0 failed" in told
