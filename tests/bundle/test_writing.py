"""A bundle appears whole or not at all; what it shares with its base; what killed runs leave."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import GRAPHS, License, Manifest, Preprocessing, TokenizerSpec, Variant
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


def _names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def _finish(folder, **changes):
    (folder.path / "LICENSE").write_text("free\n")
    (folder.path / "tokenizer.json").write_text("{}")
    (folder.path / "g.onnx").write_bytes(b"graph")
    fields = {
        "name": "made",
        "model": {},
        "preprocessing": Preprocessing(image_size=16),
        "tokenizer": TokenizerSpec(start_id=1, end_id=2),
        "license": License(name="free"),
        "variants": {"v": Variant(runtime="r", precision="p", graphs=dict.fromkeys(GRAPHS, "g.onnx"))},
    }
    return folder.finish(**{**fields, **changes})


def test_a_new_bundle_appears_when_the_block_ends(tmp_path):
    with new_bundle(tmp_path / "deep" / "made") as folder:
        manifest = _finish(folder)
        assert not (tmp_path / "deep" / "made").exists()
    assert isinstance(manifest, Manifest)
    assert Bundle.open(tmp_path / "deep" / "made").verify().manifest == manifest
    assert _names(tmp_path / "deep") == [
        "made",
        *(f"made/{n}" for n in ("LICENSE", "bundle.json", "g.onnx", "tokenizer.json")),
    ]


def test_an_interrupted_one_leaves_nothing(tmp_path):
    def interrupted():
        with new_bundle(tmp_path / "made") as folder:
            _finish(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _names(tmp_path) == []


def test_an_unfinished_one_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="call finish"), new_bundle(tmp_path / "made"):
        pass
    assert _names(tmp_path) == []


def test_a_file_changed_after_finish_is_found(tmp_path):
    def changed():
        with new_bundle(tmp_path / "made") as folder:
            _finish(folder)
            (folder.path / "g.onnx").write_bytes(b"other")

    with pytest.raises(ArtifactError, match=r"g\.onnx was changed"):
        changed()
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name: Field required"),
        ({"license": License(name="x", file="NO")}, "license.file names 'NO'"),
        ({"variants": {}}, "variants"),
    ],
)
def test_a_manifest_that_does_not_fit_the_folder(tmp_path, changes, message):
    with pytest.raises(ArtifactError, match=message), new_bundle(tmp_path / "made") as folder:
        _finish(folder, **changes)
    assert _names(tmp_path) == []


def test_existing_bundle_is_replaced_on_request_only(tmp_path, write_tiny_bundle):
    made = tmp_path / "made"
    with new_bundle(made) as folder:
        _finish(folder)
    with pytest.raises(ArtifactError, match="exists already"), new_bundle(made) as folder:
        pytest.fail("the block must not run")
    assert Bundle.open(made).manifest.name == "made"
    write_tiny_bundle(made, overwrite=True)
    assert Bundle.open(made).manifest.name == "tiny"
    assert not (made / "g.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_other_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    with pytest.raises(ArtifactError, match="is no bundle, it will not be replaced"):  # noqa: SIM117
        with new_bundle(tmp_path / "thesis", overwrite=True):
            pytest.fail("the block must not run")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years"


def test_a_failed_replacement_keeps_the_old_one(tmp_path, write_tiny_bundle):
    made = write_tiny_bundle(tmp_path / "made")

    def failing():
        with new_bundle(made.root, overwrite=True) as folder:
            _finish(folder)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        failing()
    assert Bundle.open(made.root).manifest.name == "tiny"


def test_a_failed_rename_puts_the_old_one_back(tmp_path, write_tiny_bundle, monkeypatch):
    made = write_tiny_bundle(tmp_path / "made")
    rename = os.rename

    def fails_once(source, target):
        if str(source).endswith(".partial"):
            raise OSError("no space")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    with pytest.raises(OSError, match="no space"), new_bundle(made.root, overwrite=True) as folder:
        _finish(folder)
    assert Bundle.open(made.root).manifest.name == "tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_variant_is_added_in_place(tmp_path, write_tiny_bundle):
    old = write_tiny_bundle(tmp_path / "made")
    (old.root / "notes.txt").write_text("not part of the bundle")
    graphs = old.manifest.variants["onnx-fp32"].graphs
    with new_bundle(old.root, overwrite=True, base=old) as folder:
        (folder.path / "onnx-int8").mkdir()
        for name in graphs:
            (folder.path / "onnx-int8" / f"{name}.onnx").write_bytes(b"")  # to protobuf, a graph of nothing
        added = {name: f"onnx-int8/{name}.onnx" for name in graphs}
        folder.finish(variants={"onnx-int8": Variant(runtime="onnxruntime", precision="int8", graphs=added)})
    new = Bundle.open(old.root).verify()
    assert list(new.manifest.variants) == ["onnx-fp32", "onnx-int8"]
    assert {k: v for k, v in new.manifest.files.items() if "int8" not in k} == old.manifest.files
    assert new.manifest.model_copy(update={"files": {}, "variants": {}}) == old.manifest.model_copy(
        update={"files": {}, "variants": {}}
    )
    assert not (new.root / "notes.txt").exists()
