"""Core ML as a runtime, with a fake of coremltools: there is no Core ML here."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.install_hint import install_hint
from sam3i_edge.runtimes import coreml as mlpackage
from sam3i_edge.runtimes import open_runtime, probe
from sam3i_edge.runtimes.coreml import INTERFACE_KEY, ImageInput, Interface, Port

INTERFACE = Interface(
    "detector",
    {"x": Port("float32", (1, 2)), "ids": Port("int64", (1, 3)), "mask": Port("bool", (1, 3))},
    {"y": Port("float32", (1, 2)), "kept": Port("bool", (1, 3))},
)
IMAGE = Interface(
    "image_encoder",
    {"pixel_values": Port("float32", (1, 3, 4, 4))},
    {"y": Port("float32", (1,))},
    ImageInput("image", "pixel_values", 1 / 127.5, (-1.0, -1.0, -1.0)),
)
INPUTS = {
    "x": np.array([[1.5, 2.0]], np.float32),
    "ids": np.array([[7, 8, 9]]),
    "mask": np.array([[True, False, True]]),
}


class FakeModel:
    """Records what `predict` is given."""

    metadata: dict[str, str] = {}  # noqa: RUF012
    given: list[dict[str, object]] = []  # noqa: RUF012
    units: list[str] = []  # noqa: RUF012

    def __init__(self, path, compute_units):
        if "damaged" in path:
            raise RuntimeError("Error compiling model:\n bad program")
        self.units.append(compute_units)
        self.user_defined_metadata = self.metadata

    def predict(self, inputs):
        self.given.append(inputs)
        if "x" in inputs and inputs["x"][0, 0] < 0:
            raise RuntimeError("Unable to compute\n the prediction")
        if "image" in inputs:
            return {"y": np.array([float(np.asarray(inputs["image"]).sum())])}
        return {"y": inputs["x"].astype(np.float16) * 2, "kept": inputs["mask"], "extra": 0}


@pytest.fixture
def mac(monkeypatch):
    """A Mac with coremltools."""
    units = SimpleNamespace(ALL="ALL", CPU_ONLY="CPU", CPU_AND_GPU="GPU", CPU_AND_NE="NE")
    fake = SimpleNamespace(models=SimpleNamespace(MLModel=FakeModel), ComputeUnit=units, __version__="9.0")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    monkeypatch.setattr(FakeModel, "given", [])
    monkeypatch.setattr(FakeModel, "units", [])
    monkeypatch.setattr(FakeModel, "metadata", {INTERFACE_KEY: INTERFACE.to_json()})
    mlpackage.probe.cache_clear()
    return fake


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "Detector.mlpackage"
    path.mkdir()
    (path / "Manifest.json").write_text("{}")
    return path


def test_it_takes_and_gives_the_arrays_of_the_graph(mac, package):
    runtime = open_runtime("coreml", package, "neural-engine")
    outputs = runtime.run(INPUTS)
    (given,) = FakeModel.given
    assert {name: value.dtype for name, value in given.items()} == {
        "x": np.float32, "ids": np.int32, "mask": np.int32,
    }  # fmt: skip
    assert outputs.keys() == {"y", "kept"}
    assert outputs["y"].dtype == np.float32
    np.testing.assert_array_equal(outputs["y"], [[3.0, 4.0]])
    assert outputs["kept"].dtype == np.bool_
    np.testing.assert_array_equal(outputs["kept"], INPUTS["mask"])


@pytest.mark.parametrize(
    ("device", "unit"), [("apple", "ALL"), ("cpu", "CPU"), ("gpu", "GPU"), ("neural-engine", "NE")]
)
def test_devices_are_compute_units(mac, package, device, unit):
    open_runtime("coreml", package, device)
    assert FakeModel.units == [unit]


def test_a_pixel_buffer_is_made_of_pixel_values(mac, package, monkeypatch):
    monkeypatch.setattr(FakeModel, "metadata", {INTERFACE_KEY: IMAGE.to_json()})
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    values = (picture.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    runtime = open_runtime("coreml", package, "apple")
    runtime.run({"pixel_values": values})
    (given,) = FakeModel.given
    assert list(given) == ["image"]
    np.testing.assert_array_equal(np.asarray(given["image"]), picture)
    for wrong in (values + np.float32(0.003), values + 2):
        with pytest.raises(ValueError, match=r"whole grey levels 0\.\.255"):
            runtime.run({"pixel_values": wrong})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ids": INPUTS["ids"].astype(np.int32)}, r"detector: input 'ids' is int32 \[1, 3\], want int64"),
        ({"x": np.zeros((2, 2), np.float32)}, r"input 'x' is float32 \[2, 2\], want float32 \[1, 2\]"),
        ({"z": INPUTS["x"]}, "wants the inputs x, ids, mask, got x, ids, mask, z"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused(mac, package, change, complaint):
    runtime = open_runtime("coreml", package, "apple")
    with pytest.raises(ValueError, match=complaint):
        runtime.run({**INPUTS, **change})
    assert not FakeModel.given


def test_failures_are_one_line(mac, package):
    runtime = open_runtime("coreml", package, "apple")
    with pytest.raises(RuntimeUnavailable, match="failed in Core ML: Unable to compute the prediction"):
        runtime.run({**INPUTS, "x": -INPUTS["x"]})
    damaged = package.rename(package.with_name("damaged.mlpackage"))
    with pytest.raises(ArtifactError, match=r"cannot open .*: Error compiling model: bad program"):
        open_runtime("coreml", damaged, "apple")


def test_closed_is_closed(mac, package):
    runtime = open_runtime("coreml", package, "apple")
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        runtime.run(INPUTS)


def test_a_missing_package_and_one_of_another_maker(mac, package, monkeypatch):
    with pytest.raises(ArtifactError, match="does not exist"):
        open_runtime("coreml", package.with_name("absent.mlpackage"), "apple")
    for metadata in ({}, {INTERFACE_KEY: "{}"}, {INTERFACE_KEY: "["}, {INTERFACE_KEY: "[1]"}):
        monkeypatch.setattr(FakeModel, "metadata", metadata)
        with pytest.raises(ArtifactError, match=f"lacks the entry {INTERFACE_KEY}"):
            open_runtime("coreml", package, "apple")


def test_threads_are_core_mls_own(mac, package):
    with pytest.raises(ValueError, match="chooses its threads itself"):
        open_runtime("coreml", package, "apple", threads=2)


def test_unknown_device(mac, package):
    with pytest.raises(
        RuntimeUnavailable, match="Core ML runs on cpu, gpu, neural-engine, apple, not on 'cuda'"
    ):
        open_runtime("coreml", package, "cuda")


@pytest.mark.skipif(sys.platform == "darwin", reason="there it may run")
def test_elsewhere_it_refuses_before_importing_anything(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    mlpackage.probe.cache_clear()
    refusal = "Core ML runs on macOS only, this is linux: use runtime 'onnxruntime' here"
    with pytest.raises(RuntimeUnavailable, match=refusal):
        open_runtime("coreml", package, "apple")
    with pytest.raises(RuntimeUnavailable, match=refusal):
        probe("coreml", "apple")


def test_the_missing_package_is_named(mac, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(RuntimeUnavailable, match=re.escape(install_hint("coreml"))):
        open_runtime("coreml", package, "apple")


def _probing(mac, answer):
    """Gives the fake what `probe` uses beside `MLModel`."""

    class Builder:
        TensorSpec = staticmethod(lambda shape: shape)
        add = staticmethod(lambda x, y, name: (x, y, name))

        @staticmethod
        def program(input_specs):
            assert input_specs == [(1,)]
            return lambda function: function("x")

    def convert(program, convert_to, compute_units):
        assert (program, convert_to, compute_units) == (("x", "x", "y"), "mlprogram", "ALL")

        def predict(inputs):
            if answer is None:
                raise RuntimeError("no such\n unit")
            return {"y": np.array([answer])}

        return SimpleNamespace(predict=predict)

    mac.converters = SimpleNamespace(mil=SimpleNamespace(Builder=Builder))
    mac.convert = convert


def test_probe_runs_an_addition(mac):
    _probing(mac, 2.0)
    probe("coreml", "apple")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(None, "Core ML does not run on apple: no such unit"), (3.0, r"computes 1 \+ 1 = 3\.0 on apple")],
)
def test_probe_says_why_not(mac, answer, complaint):
    _probing(mac, answer)
    with pytest.raises(RuntimeUnavailable, match=complaint):
        probe("coreml", "apple")
