import dataclasses
import re
import sys

import pytest

from sam3i_edge import Segmenter, runtimes
from sam3i_edge.agreement import LIMITS
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.devices import doctor
from sam3i_edge.devices import profiles as devices
from sam3i_edge.devices.profiles import DEVICES, UnknownDevice, check_device, choose
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable


def test_auto_chooses_and_says_so(tiny_bundle):
    choice = choose(tiny_bundle)
    assert (choice.device, choice.runtime, choice.precision, choice.variant) == (
        "cpu",
        "onnxruntime",
        "fp32",
        "onnx-fp32",
    )
    assert choice.reason.startswith("device cpu (chosen by auto), runtime onnxruntime (chosen by auto)")


def test_what_was_asked_for_is_named_so(tiny_bundle):
    choice = choose(tiny_bundle, "cpu", "fp32", "onnxruntime")
    assert "auto" not in choice.reason
    assert choice.reason.count("asked for") == 3


def test_unknown_device_lists_the_known_ones(tiny_bundle):
    with pytest.raises(
        UnknownDevice, match=r"unknown device 'tpu'; this version has auto, jetson, cuda, .*cpu"
    ) as raised:
        choose(tiny_bundle, "tpu")
    assert isinstance(raised.value, (RuntimeUnavailable, ValueError))


def test_absent_precision_names_what_exists_and_what_to_do(tiny_bundle):
    with pytest.raises(
        ArtifactError,
        match=r"has no variant for onnxruntime or .* or litert at int8; it has onnx-fp32 .*'sam3i-edge",
    ):
        choose(tiny_bundle, precision="int8")


def test_fp16_never_runs_on_a_processor(tiny_bundle):
    with pytest.raises(
        RuntimeUnavailable, match=r"device 'cpu' does not run fp16 .*ask for fp32, int8w or auto"
    ):
        choose(tiny_bundle, precision="fp16")


def test_unknown_runtime(tiny_bundle):
    with pytest.raises(RuntimeUnavailable, match="unknown runtime 'tflite'; choose from auto, onnxruntime"):
        choose(tiny_bundle, runtime="tflite")


def test_bundle_for_another_runtime(tiny_bundle):
    variant = tiny_bundle.manifest.variants["onnx-fp32"].model_copy(update={"runtime": "coreml"})
    manifest = tiny_bundle.manifest.model_copy(update={"variants": {"coreml-fp32": variant}})
    with pytest.raises(ArtifactError, match=r"it has coreml-fp32 \(coreml, fp32\)"):
        choose(Bundle(tiny_bundle.root, manifest))


def test_a_runtime_that_does_not_run_is_an_error_and_no_fallback(tiny_bundle, monkeypatch):
    def broken(runtime, device):
        raise RuntimeUnavailable(f"{runtime} does not run on {device}")

    monkeypatch.setattr(runtimes, "probe", broken)
    with pytest.raises(RuntimeUnavailable, match="onnxruntime does not run on cpu"):
        choose(tiny_bundle)


@pytest.mark.parametrize("name", DEVICES)
def test_every_profile_is_whole(name):
    row = DEVICES[name]
    assert row.name == name
    assert row.detected
    for found, known in (
        (row.runtimes, runtimes.RUNTIMES),
        (row.runtimes, doctor._DISTRIBUTIONS),
        (row.precisions, LIMITS),
        (row.builds, row.precisions),
        ([precision for precision, _ in row.refuses], LIMITS),
    ):
        assert set(found) <= set(known)
        assert len(set(found)) == len(found)
    assert row.runtimes
    assert row.precisions
    assert not {precision for precision, _ in row.refuses} & {*row.precisions, *row.builds}


def test_every_runtime_serves_a_device_and_is_looked_for_by_doctor():
    assert list(DEVICES) == ["jetson", "cuda", "apple", "intel-gpu", "intel-npu", "cpu"], "auto's order"
    served = {runtime for row in DEVICES.values() for runtime in row.runtimes}
    assert served == set(runtimes.RUNTIMES) == set(doctor._DISTRIBUTIONS)
    assert DEVICES["cpu"].runtimes == ("onnxruntime", "openvino", "eager", "litert")


# A machine of one's own making: a folder that stands for "/", and a driver that counts GPUs or not.


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(
        devices.nvidia, "gpu_missing", lambda: "libcuda.so.1 is not installed on this machine"
    )
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _variants(bundle, *pairs):
    """The tiny bundle with its one variant under other names: (runtime, precision)."""
    held = bundle.manifest.variants["onnx-fp32"]
    variants = {
        f"{runtime}-{precision}": held.model_copy(update={"runtime": runtime, "precision": precision})
        for runtime, precision in pairs
    }
    return Bundle(bundle.root, bundle.manifest.model_copy(update={"variants": variants}))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("jetson", r"no Tegra release file .* and no Tegra in the device tree"),
        ("cuda", r"libcuda.so.1 is not installed"),
        ("apple", "it needs macOS, this is Linux"),
        ("intel-gpu", "no GPU of Intel below /sys/class/drm"),
        ("intel-npu", "no NPU of Intel below /sys/class/accel"),
    ],
)
def test_a_device_that_is_not_here_says_why_and_what_to_use(machine, name, why):
    with pytest.raises(
        RuntimeUnavailable,
        match=f"device '{name}' is not on this machine: {why}.*; use device='cpu', or 'auto'",
    ) as raised:
        check_device(name, machine)
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, ValueError), "it is no typing error"


def test_cpu_and_auto_are_always_here(machine):
    check_device("cpu", machine)
    check_device("auto", machine)


def test_jetson_on_a_laptop_is_refused_before_the_model_is_read():
    with pytest.raises(RuntimeUnavailable, match="'jetson' is not on this machine"):
        Segmenter("no/such/bundle", device="jetson")


@pytest.mark.parametrize(
    ("name", "node"),
    [("intel-gpu", "sys/class/drm/renderD128"), ("intel-npu", "sys/class/accel/accel0")],
)
def test_intel_devices_are_told_by_their_vendor(machine, name, node):
    _write(machine / node / "device/vendor", "0x10de\n")
    with pytest.raises(RuntimeUnavailable, match="of Intel"):
        check_device(name, machine)
    _write(machine / node / "device/vendor", "0x8086\n")
    check_device(name, machine)


def test_auto_takes_the_best_device_that_is_here_and_runs(machine, tiny_bundle, monkeypatch):
    monkeypatch.setattr(runtimes, "probe", lambda runtime, device: None)
    assert choose(tiny_bundle, root=machine).device == "cpu"
    _write(machine / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    choice = choose(tiny_bundle, root=machine)
    assert (choice.device, choice.runtime, choice.precision, choice.variant) == (
        "jetson",
        "onnxruntime",
        "fp16",
        "onnx-fp32",
    )
    assert choice.builds
    assert "the fp16 engine is built from onnx-fp32" in choice.reason


def test_auto_says_which_device_it_passed_over_and_why(machine, tiny_bundle, monkeypatch):
    def only_cpu(runtime, device):
        if device != "cpu":
            raise RuntimeUnavailable(f"{runtime} has no provider for {device}")

    monkeypatch.setattr(runtimes, "probe", only_cpu)
    _write(machine / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3\n")
    choice = choose(tiny_bundle, root=machine)
    assert choice.device == "cpu"
    assert choice.reason.endswith("passed over jetson, which is here: onnxruntime has no provider for jetson")
    with pytest.raises(RuntimeUnavailable, match="has no provider for jetson"):
        choose(tiny_bundle, "jetson", root=machine)


def test_auto_never_takes_the_npu(machine, tiny_bundle, monkeypatch):
    monkeypatch.setattr(runtimes, "probe", lambda runtime, device: None)
    _write(machine / "sys/class/accel/accel0/device/vendor", "0x8086\n")
    bundle = _variants(tiny_bundle, ("openvino", "fp16"), ("onnxruntime", "fp32"))
    assert choose(bundle, root=machine).device == "cpu"
    assert choose(bundle, "intel-npu", root=machine).variant == "openvino-fp16"


def test_an_fp16_variant_is_built_as_it_is(machine, tiny_bundle, monkeypatch):
    monkeypatch.setattr(runtimes, "probe", lambda runtime, device: None)
    _write(machine / "proc/device-tree/compatible", "nvidia,p3737\0nvidia,tegra234\0")
    bundle = _variants(tiny_bundle, ("onnxruntime", "fp32"), ("onnxruntime", "fp16"))
    choice = choose(bundle, "jetson", root=machine)
    assert (choice.precision, choice.variant) == ("fp16", "onnxruntime-fp16")
    assert "built from" not in choice.reason
    assert choose(bundle, "jetson", "fp32", root=machine).variant == "onnxruntime-fp32"


def test_auto_passes_over_a_runtime_that_does_not_run_and_says_so(machine, tiny_bundle, monkeypatch):
    def no_onnxruntime(runtime, device):
        if runtime == "onnxruntime":
            raise RuntimeUnavailable("onnxruntime is broken")

    monkeypatch.setattr(runtimes, "probe", no_onnxruntime)
    bundle = _variants(tiny_bundle, ("onnxruntime", "fp32"), ("openvino", "fp32"))
    choice = choose(bundle, root=machine)
    assert choice.runtime == "openvino"
    assert choice.reason.endswith("passed over: onnxruntime is broken")
    with pytest.raises(RuntimeUnavailable, match="onnxruntime is broken"):
        choose(bundle, runtime="onnxruntime", root=machine)


def test_every_precision_but_fp16_runs_on_a_cpu_when_asked_for(machine, tiny_bundle):
    for precision in ("int8", "int4", "mixed"):
        bundle = _variants(tiny_bundle, ("onnxruntime", precision), ("onnxruntime", "fp32"))
        assert choose(bundle, "cpu", precision, root=machine).precision == precision
        assert choose(bundle, "cpu", root=machine).precision == "fp32"


def test_a_runtime_that_this_version_lacks_is_named(machine, tiny_bundle, monkeypatch):
    monkeypatch.setattr(runtimes, "_RUNTIMES", {"onnxruntime": runtimes._RUNTIMES["onnxruntime"]})
    bundle = _variants(tiny_bundle, ("openvino", "fp32"))
    with pytest.raises(RuntimeUnavailable, match="unknown runtime 'openvino'; choose from onnxruntime"):
        choose(bundle, "cpu", root=machine)


def test_a_runtime_that_serves_another_device_names_it(machine, tiny_bundle, monkeypatch):
    monkeypatch.setattr(runtimes, "RUNTIMES", ("onnxruntime", "coreml"))
    with pytest.raises(RuntimeUnavailable, match="'coreml' does not serve device 'cpu'"):
        choose(tiny_bundle, "cpu", runtime="coreml", root=machine)
    with pytest.raises(
        RuntimeUnavailable,
        match=re.escape("'coreml' serves no device of this machine (apple: it needs macOS"),
    ):
        choose(tiny_bundle, runtime="coreml", root=machine)


def test_profiles_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEVICES["cpu"].name = "gpu"
