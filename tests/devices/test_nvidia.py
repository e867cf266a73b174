"""NVIDIA's libraries through ctypes, with stand-ins: no GPU is needed."""

import pytest

from sam3i_edge.devices import nvidia
from sam3i_edge.errors import RuntimeUnavailable


@pytest.fixture
def libraries(fakes, monkeypatch):
    def give(**options):
        monkeypatch.setattr(nvidia, "_library", fakes.libraries(**options))

    return give


def test_a_library_that_is_not_installed():
    with pytest.raises(RuntimeUnavailable, match=r"libnothing\.so\.1 is not installed on this machine"):
        nvidia._library("libnothing.so.1", "libnothing.so")


def test_a_machine_with_a_gpu(libraries):
    libraries()
    assert nvidia.gpu_missing() is None
    assert nvidia.compute_capability() == "8.7"


def test_a_driver_without_a_gpu(fakes, libraries):
    libraries(driver=fakes.Driver(gpus=0))
    assert "the NVIDIA driver sees no GPU" in nvidia.gpu_missing()


def test_a_driver_that_does_not_start(fakes, libraries):
    driver = fakes.Driver()
    driver.cuInit = lambda flags: 100
    libraries(driver=driver)
    assert nvidia.gpu_missing() == "the NVIDIA driver does not start (cuInit: status 100)"
    with pytest.raises(RuntimeUnavailable, match="does not start"):
        nvidia.compute_capability()


@pytest.mark.parametrize(
    ("number", "version"), [(101600, "10.16.0"), (100300, "10.3.0"), (8601, "8.6.1"), (110001, "11.0.1")]
)
def test_versions_of_tensorrt(libraries, number, version):
    libraries(tensorrt=number)
    assert nvidia.tensorrt_version() == version
