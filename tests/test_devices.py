import pytest

from sam3i_edge import runtimes
from sam3i_edge.bundle import Bundle
from sam3i_edge.devices import DEVICES, UnknownDevice, choose, profile
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


@pytest.mark.parametrize("name", ["cuda", "jetson", "intel-gpu", "intel-npu", "apple"])
def test_devices_of_later_versions(name):
    with pytest.raises(
        UnknownDevice, match=f"device '{name}' comes with a later version; this one has auto, cpu"
    ):
        profile(name)


def test_unknown_device_lists_the_known_ones(tiny_bundle):
    with pytest.raises(
        UnknownDevice, match=r"unknown device 'tpu'; this version has auto, cpu .*jetson"
    ) as raised:
        choose(tiny_bundle, "tpu")
    assert isinstance(raised.value, (RuntimeUnavailable, ValueError))


def test_absent_precision_names_what_exists_and_what_to_do(tiny_bundle):
    with pytest.raises(
        ArtifactError,
        match=r"'tiny' has no variant for onnxruntime at int8; it has onnx-fp32 .*'sam3i-edge export'",
    ):
        choose(tiny_bundle, precision="int8")


def test_fp16_never_runs_on_a_processor(tiny_bundle):
    with pytest.raises(RuntimeUnavailable, match=r"device 'cpu' does not run fp16 .*ask for fp32 or auto"):
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


def test_every_profile_names_runtimes_that_exist():
    for name, row in DEVICES.items():
        assert row.name == name
        assert row.precisions
        assert set(row.runtimes) <= set(runtimes.RUNTIMES)
