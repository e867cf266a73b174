import pytest

from sam3i_edge.devices import jetson

ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 2025\n"


def board(root, *, release=ORIN, model=None, compatible=None, memory=None, nvpmodel=None):
    """Writes what a Jetson has below `root`."""
    files = {
        "etc/nv_tegra_release": release,
        "proc/device-tree/model": model,
        "proc/device-tree/compatible": compatible,
        "proc/meminfo": memory,
        "usr/sbin/nvpmodel": nvpmodel,
    }
    for name, text in files.items():
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
    return root


def test_a_board_is_read_whole(tmp_path):
    board(
        tmp_path,
        model="NVIDIA Jetson AGX Orin Developer Kit\0",
        compatible="nvidia,p3737-0000+p3701-0000\0nvidia,p3701-0000\0nvidia,tegra234\0",
        memory="MemTotal:       31312220 kB\nMemFree:         1024 kB\n",
        nvpmodel="#!/bin/sh\n[ $1 = -q ] && printf 'NV Power Mode: MAXN_SUPER\\n2\\n'\n",
    )
    assert jetson.detect(tmp_path) == jetson.Jetson(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        l4t="36.4.3",
        jetpack="6.2",
        memory_bytes=31312220 * 1024,
        power_mode="MAXN_SUPER",
    )


def test_no_board(tmp_path):
    assert jetson.detect(tmp_path) is None
    board(
        tmp_path, release=None, model="Raspberry Pi 5\0", compatible="raspberrypi,5-model-b\0brcm,bcm2712\0"
    )
    assert jetson.detect(tmp_path) is None


def test_a_container_shows_the_device_tree_only(tmp_path):
    board(tmp_path, release=None, compatible="nvidia,p3768-0000\0nvidia,tegra234\0")
    found = jetson.detect(tmp_path)
    assert found == jetson.Jetson(model=None, l4t=None, jetpack=None, memory_bytes=None, power_mode=None)


@pytest.mark.parametrize(
    ("release", "revision", "l4t", "jetpack"),
    [
        ("36", "3.0", "36.3.0", "6.0"),
        ("36", "4.0", "36.4.0", "6.1"),
        ("38", "4.0", "38.4.0", "7.1"),
        ("39", "2.0", "39.2.0", "7.2"),
        ("39", "2", "39.2.0", "7.2"),
        ("35", "4.1", "35.4.1", "5.1.2"),
        ("36", "4.99", "36.4.99", None),
        ("41", "1.0", "41.1.0", None),
    ],
)
def test_releases_of_jetson_linux(tmp_path, release, revision, l4t, jetpack):
    board(tmp_path, release=f"# R{release} (release), REVISION: {revision}, GCID: 1, BOARD: generic\n")
    found = jetson.detect(tmp_path)
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


@pytest.mark.parametrize(
    "program",
    [
        None,
        "#!/bin/sh\necho 'nvpmodel: permission denied' >&2; exit 255\n",
        "#!/bin/sh\necho nothing of use\n",
        "no program at all",
    ],
)
def test_a_power_mode_that_cannot_be_read_is_none(tmp_path, program):
    assert jetson.detect(board(tmp_path, nvpmodel=program)).power_mode is None


def test_a_release_file_of_another_form(tmp_path):
    found = jetson.detect(board(tmp_path, release="something else\n"))
    assert (found.l4t, found.jetpack) == (None, None)
