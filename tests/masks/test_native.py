"""The C library against its definition in NumPy. The library is built here from native/, with CMake."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import sam3i_edge
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint
from sam3i_edge.masks import native, rle
from sam3i_edge.pipeline.postprocess import resize_mask_logits
from sam3i_edge.pipeline.preprocess import to_pixel_values

ROOT = Path(__file__).parents[2]
HINT = re.escape(install_hint(options="--force-reinstall --no-deps"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if shutil.which("cmake") is None or not (ROOT / "native").is_dir():
        pytest.skip("needs CMake and the source tree")
    folder = tmp_path_factory.mktemp("native")
    subprocess.run(["cmake", "-S", ROOT, "-B", folder], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder, "--config", "Release"], check=True, capture_output=True)
    return next(folder.rglob(native.LIBRARY_NAME))


@pytest.fixture(scope="module")
def library(built):
    return native.load(built)


@pytest.fixture
def package_folder(monkeypatch, tmp_path):
    """Makes the package look into an empty folder, and forget what it found before and after."""
    monkeypatch.setattr(sam3i_edge, "__path__", [*sam3i_edge.__path__, str(tmp_path)])
    monkeypatch.setattr(native, "LIBRARY_NAME", "lib_for_this_test.so")
    native._installed.cache_clear()
    yield tmp_path
    native._installed.cache_clear()


def _assert_same(got, want):
    assert got["size"] == want["size"]
    np.testing.assert_array_equal(got["counts"], want["counts"])
    assert got["counts"].dtype == want["counts"].dtype == np.int64
    assert (got["area"], got["bbox"]) == (want["area"], want["bbox"])


# Values that make ties, zeros and products that round to zero.
VALUES = {
    "noise": lambda x: x,
    "whole": np.round,
    "halves": lambda x: np.round(x * 2) / 2,
    "denormal": lambda x: x * 1e-42,
    "smallest": lambda x: np.round(x) * 1.4e-45,
    "smooth": lambda x: np.cumsum(np.cumsum(x, 0), 1) / 8 + 0.3,
    "inside": lambda x: np.abs(x) + 1,
    "outside": lambda x: -np.abs(x),
}


@pytest.mark.parametrize("values", VALUES)
def test_library_and_definition_agree_exactly(library, values):
    rng = np.random.default_rng(list(VALUES).index(values))
    for _ in range(120):
        rows, columns = (int(side) for side in rng.integers(1, 24, 2))
        size = tuple(int(side) for side in rng.integers(1, 90, 2))
        logits = VALUES[values](rng.normal(size=(rows, columns))).astype(np.float32)
        threshold = float(rng.choice([0, 0, 0.5, -0.3]))
        _assert_same(
            library.mask_rle(logits, size, threshold), native.mask_rle_reference(logits, size, threshold)
        )


def test_a_full_size_mask(library):
    y, x = np.mgrid[:288, :288].astype(np.float32) / 288
    noise = np.random.default_rng(0).normal(size=(288, 288)).astype(np.float32)
    logits = (20 * (0.3 - np.hypot(y - 0.5, x - 0.4)) + noise).astype(np.float32)
    want = native.mask_rle_reference(logits, (540, 960))
    _assert_same(library.mask_rle(logits, (540, 960)), want)
    np.testing.assert_array_equal(rle.decode(want), resize_mask_logits(logits[None], (540, 960))[0])
    assert want["area"] > 100_000


def test_more_runs_than_expected(library):
    checkers = np.where(np.indices((400, 4)).sum(0) % 2, 1, -1).astype(np.float32)
    got = library.mask_rle(checkers, (400, 4))
    assert len(got["counts"]) > 16 * 4 + 16  # the first buffer is too short
    _assert_same(got, native.mask_rle_reference(checkers, (400, 4)))


def test_runs_box_and_area_are_those_of_pycocotools(library):
    from pycocotools import mask as coco

    rng = np.random.default_rng(7)
    for _ in range(50):
        size = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        got = library.mask_rle(rng.normal(-0.5, 1, (6, 5)).astype(np.float32), size)
        packed = {"size": list(size), "counts": rle.compress(got["counts"]).encode()}
        assert coco.encode(np.asfortranarray(rle.decode(got).astype(np.uint8)))["counts"] == packed["counts"]
        assert coco.area(packed) == got["area"]
        if got["area"]:
            assert coco.toBbox(packed).tolist() == got["bbox"]


def test_an_empty_mask_has_an_empty_box(library):
    got = library.mask_rle(np.full((3, 3), -1, np.float32), (4, 5))
    assert (got["counts"].tolist(), got["area"], got["bbox"]) == ([20], 0, [0, 0, 0, 0])


def test_products_that_round_to_zero(library):
    smallest = np.full((8, 4), 1.4e-45, np.float32)  # halved, each rounds to 0: not above the threshold
    got = library.mask_rle(smallest, (4, 4))
    assert got["area"] == 0
    _assert_same(got, native.mask_rle_reference(smallest, (4, 4)))


def test_strided_logits(library):
    logits = np.random.default_rng(1).normal(size=(8, 12)).astype(np.float32)[::2, ::-3]
    _assert_same(library.mask_rle(logits, (20, 20)), library.mask_rle(logits.copy(), (20, 20)))


def test_threads(library):
    rng = np.random.default_rng(2)
    inputs = [rng.normal(size=(64, 64)).astype(np.float32) for _ in range(4)]
    wanted = [native.mask_rle_reference(logits, (200, 200)) for logits in inputs]
    results = {}

    def work(number):
        results[number] = [library.mask_rle(inputs[number], (200, 200)) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, want in enumerate(wanted):
        for got in results[number]:
            _assert_same(got, want)


MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _pixel_values(image, size):
    return to_pixel_values(image, size, MEAN, DEVIATION, implementation="reference")


def test_pixel_values_of_library_and_definition_agree_exactly(library):
    rng = np.random.default_rng(9)
    for _ in range(300):
        height, width = rng.integers(1, 70, 2)
        size = int(rng.integers(1, 50))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        got = library.pixel_values(image, size, MEAN, DEVIATION)
        np.testing.assert_array_equal(got, _pixel_values(image, size), f"{height} x {width} to {size}")


@pytest.mark.parametrize(("shape", "size"), [((480, 640), 224), ((1201, 307), 336), ((333, 500), 1008)])
def test_pixel_values_of_pictures(library, shape, size):
    image = np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for one in (image, np.full_like(image, 255), image[::-1, :, ::-1]):  # the last is strided
        np.testing.assert_array_equal(
            library.pixel_values(one, size, MEAN, DEVIATION), _pixel_values(np.ascontiguousarray(one), size)
        )


def test_pixel_values_refuse_what_the_header_forbids(library):
    image = np.zeros((4, 4, 3), np.uint8)
    for size, deviation in ((0, DEVIATION), (1 << 15, DEVIATION), (4, (1, 1, 0)), (4, (1, 1, float("nan")))):
        status = library._pixel_values(
            image.ctypes.data, 4, 4, size, np.array(MEAN, np.float32).ctypes.data,
            np.array(deviation, np.float32).ctypes.data, image.ctypes.data,
        )  # fmt: skip
        assert status == 1
    assert library._pixel_values(None, 4, 4, 4, None, None, None) == 1


@pytest.mark.parametrize("which", ["library", "reference"])
def test_bad_arguments(which, request):
    run = native.mask_rle_reference if which == "reference" else request.getfixturevalue("library").mask_rle
    good = np.zeros((2, 2), np.float32)
    for bad in (np.zeros((2, 2)), np.zeros((1, 2, 2), np.float32), np.zeros((0, 2), np.float32)):
        with pytest.raises(ValueError, match=r"float32 \[h, w\]"):
            run(bad, (4, 4))
    for size in ((0, 4), (4, -1), (70_000, 70_000)):
        with pytest.raises(ValueError, match="image size must be"):
            run(good, size)
    for value in (np.nan, np.inf, -np.inf, 3e38):
        with pytest.raises(ValueError, match="finite"):
            run(np.float32([[0, value]]), (4, 4))
    with pytest.raises(ValueError, match="finite"):
        run(good, (4, 4), float("nan"))


def test_the_header_is_c(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None or not (ROOT / "native").is_dir():
        pytest.skip("needs a C compiler and the source tree")
    source = tmp_path / "user.c"
    source.write_text(
        '#include "sam3i.h"\nint main(void) { return sam3i_abi_version() != SAM3I_ABI_VERSION; }\n'
    )
    flags = [
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-fsyntax-only",
        "-I",
        ROOT / "native/include",
    ]
    done = subprocess.run([compiler, *flags, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_the_interface_is_exported(built):
    if shutil.which("nm") is None or sys.platform != "linux":
        pytest.skip("needs nm")
    lines = subprocess.check_output(["nm", "-D", "--defined-only", built], text=True).splitlines()
    # Weak ones are the C++ library's templates.
    strong = sorted(line.split()[2] for line in lines if line.split()[1] == "T")
    assert strong == ["sam3i_abi_version", "sam3i_mask_rle", "sam3i_pixel_values"]


def test_without_the_library_the_definition_runs(package_folder):
    assert not native.available()
    assert native.implementation() == "reference"
    logits = np.random.default_rng(3).normal(size=(5, 5)).astype(np.float32)
    _assert_same(native.mask_rle(logits, (9, 9)), native.mask_rle_reference(logits, (9, 9)))
    with pytest.raises(RuntimeUnavailable, match=rf"no lib_for_this_test\.so in .*compiler: {HINT}"):
        native.mask_rle(logits, (9, 9), implementation="native")


def test_the_library_is_found_along_the_package_and_used(package_folder, built, monkeypatch):
    shutil.copy(built, package_folder / native.LIBRARY_NAME)
    assert native.implementation() == "native"
    logits = np.random.default_rng(3).normal(size=(5, 5)).astype(np.float32)
    want = native.mask_rle_reference(logits, (9, 9))
    monkeypatch.setattr(native, "mask_rle_reference", None)  # not called
    for implementation in (None, "native"):
        _assert_same(native.mask_rle(logits, (9, 9), implementation=implementation), want)
    with pytest.raises(ValueError, match="unknown implementation 'c'"):
        native.mask_rle(logits, (9, 9), implementation="c")


def test_a_library_that_cannot_be_used_is_an_error(package_folder, tmp_path):
    (package_folder / native.LIBRARY_NAME).write_bytes(b"no library")
    logits = np.zeros((2, 2), np.float32)
    for call in (native.available, native.implementation, lambda: native.mask_rle(logits, (4, 4))):
        with pytest.raises(RuntimeUnavailable, match=rf"cannot open .*compiler: {HINT}"):
            call()
    native.mask_rle(logits, (4, 4), implementation="reference")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (
            "int sam3i_abi_version(void) { return 99; }\nint sam3i_mask_rle(void) { return 0; }\n"
            "int sam3i_pixel_values(void) { return 0; }",
            "version 99.*wants 1",
        ),
        (
            "int sam3i_abi_version(void) { return 1; }\nint sam3i_mask_rle(void) { return 0; }",
            "is no sam3i_edge library.*sam3i_pixel_values",
        ),
        ("int other(void) { return 0; }", "is no sam3i_edge library"),
    ],
)
def test_a_library_of_another_version(tmp_path, source, match):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "a.c").write_text(source)
    path = tmp_path / "a.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", path, tmp_path / "a.c"], check=True, capture_output=True
    )
    with pytest.raises(RuntimeUnavailable, match=match):
        native.load(path)
