"""What a bundle shares with the one that it was made of, and what killed runs leave."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.writing import check_target, new_bundle
from sam3i_edge.errors import ArtifactError


def _again(base: Bundle, target: Path, **options) -> Bundle:
    with new_bundle(target, base=base, **options) as folder:
        folder.finish(variants={})
    return Bundle.open(target).verify()


def test_files_that_do_not_change_are_the_same_files(tiny_bundle, tmp_path):
    made = _again(tiny_bundle, tmp_path / "made")
    for name in tiny_bundle.manifest.files:
        assert (made.root / name).samefile(tiny_bundle.root / name)


def test_without_hard_links_they_are_copied(tiny_bundle, tmp_path, monkeypatch):
    def none(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", none)
    made = _again(tiny_bundle, tmp_path / "made")
    assert made.manifest.files == tiny_bundle.manifest.files
    assert not (made.root / "LICENSE").samefile(tiny_bundle.root / "LICENSE")


def test_writing_into_a_linked_file_is_an_error(write_tiny_bundle, tmp_path):
    base = write_tiny_bundle(tmp_path / "base")
    with new_bundle(tmp_path / "made", base=base) as folder:
        (folder.path / "LICENSE").write_text("Apache-2.1\n")
        with pytest.raises(RuntimeError, match="LICENSE was written into, and is linked from another"):
            folder.finish(variants={})
        (folder.path / "LICENSE").unlink()
        (folder.path / "LICENSE").write_text("Apache-2.2\n")
        folder.finish(variants={})
    assert Bundle.open(tmp_path / "made").verify().file("LICENSE").read_text() == "Apache-2.2\n"


def test_a_damaged_base_is_refused_and_not_linked(write_tiny_bundle, tmp_path):
    base = write_tiny_bundle(tmp_path / "base")
    (base.root / "LICENSE").write_text("Apache-3.0\n")
    with pytest.raises(ArtifactError, match="LICENSE was changed"), new_bundle(tmp_path / "made", base=base):
        pytest.fail("the block must not run")
    assert not (tmp_path / "made").exists()


def test_what_a_killed_run_left_goes_with_the_next(tiny_bundle, tmp_path):
    code = (
        "import os, signal, sys; from sam3i_edge.bundle.writing import new_bundle\n"
        "with new_bundle(sys.argv[1]) as folder:\n"
        "    (folder.path / 'weights').mkdir(); (folder.path / 'weights' / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "made")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    _again(tiny_bundle, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_living_run_writes_and_what_only_looks_alike_stays(tiny_bundle, tmp_path):
    living = tmp_path / ".made.1.partial"
    others = [
        tmp_path / name for name in (".made.partial", ".made.x.partial", ".other.1.partial", ".made.1.new")
    ]
    for folder in (living, *others):
        folder.mkdir()
    handle = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _again(tiny_bundle, tmp_path / "made")
        assert all(folder.is_dir() for folder in (living, *others))
    finally:
        os.close(handle)
    _again(tiny_bundle, tmp_path / "made", overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "made", *others])


def test_a_bundle_that_a_killed_run_was_replacing_is_put_back(write_tiny_bundle, tiny_bundle, tmp_path):
    write_tiny_bundle(tmp_path / ".made.1.old")
    with pytest.raises(ArtifactError, match="exists already"), new_bundle(tmp_path / "made"):
        pytest.fail("the block must not run")
    assert Bundle.open(tmp_path / "made").verify().manifest.name == "tiny"
    write_tiny_bundle(tmp_path / ".made.2.old")  # killed while it removed the old one
    _again(tiny_bundle, tmp_path / "made", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_place_that_takes_no_folder_is_refused_at_once(tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="file takes no new folder; choose another place"):
        check_target(tmp_path / "file" / "made")
    with pytest.raises(ArtifactError, match="exists already"):
        check_target(tiny_bundle.root)
    check_target(tiny_bundle.root, overwrite=True)
    check_target(tmp_path / "not" / "yet" / "there")
    with pytest.raises(ArtifactError, match="cannot write"), new_bundle(tmp_path / "file" / "made"):
        pytest.fail("the block must not run")
