import json
import shutil

import pytest

from sam3i_edge.bundle import folder as bundles
from sam3i_edge.bundle.folder import Bundle, UnknownModel, find_bundle
from sam3i_edge.bundle.manifest import (
    GRAPHS,
    read_manifest,
)
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.errors import ArtifactError
from sam3i_edge.levels import LEVELS


@pytest.fixture
def broken(tiny_bundle, tmp_path):
    """A copy of a good bundle, to be damaged."""
    return shutil.copytree(tiny_bundle.root, tmp_path / "copy")


def _edit(root, change):
    manifest = json.loads((root / "bundle.json").read_text())
    change(manifest)
    (root / "bundle.json").write_text(json.dumps(manifest))


def test_good_bundle_opens(tiny_bundle):
    opened = Bundle.open(tiny_bundle.root)
    assert opened.manifest == tiny_bundle.manifest
    assert set(GRAPHS) <= set(opened.graphs("onnx-fp32"))
    assert opened.manifest.variants["onnx-fp32"].levels == LEVELS
    assert all(path.is_file() for path in opened.graphs("onnx-fp32").values())
    assert opened.tokenizer().encode("star").ids.shape == (32,)
    assert opened.file("LICENSE").read_text() == "Apache-2.0\n"


def test_manifest_has_the_documented_fields(tiny_bundle):
    manifest = json.loads((tiny_bundle.root / "bundle.json").read_text())
    assert set(manifest) == {
        "schema_version", "name", "model", "preprocessing", "tokenizer", "thresholds", "license",
        "provenance", "files", "variants",
    }  # fmt: skip
    assert manifest["schema_version"] == 1
    assert set(manifest["files"]["LICENSE"]) == {"bytes", "sha256"}
    assert set(manifest["tokenizer"]) == {"file", "context_length", "start_id", "end_id", "pad_id"}
    assert set(manifest["variants"]["onnx-fp32"]) == {
        "runtime", "precision", "graphs", "boxes", "quant_spec", "agreement", "versions",
    }  # fmt: skip
    assert manifest["thresholds"] == {"score": 0.5, "mask_logit": 0.0}


def test_a_note_is_a_key_of_provenance(broken):
    assert read_manifest(broken).notes == ()
    _edit(broken, lambda manifest: manifest["provenance"].update(note="trained on drawn shapes only"))
    assert Bundle.open(broken).manifest.notes == ("trained on drawn shapes only",)


@pytest.mark.parametrize("note", ["", " ", 7, "two\nlines", "x" * 301])
def test_a_note_is_one_short_line(broken, note):
    _edit(broken, lambda manifest: manifest["provenance"].update(note=note))
    with pytest.raises(ArtifactError, match=r"provenance\.note must be one line of 1 to 300 characters"):
        Bundle.open(broken)


def test_the_bundled_model_says_what_it_was_trained_on():
    assert Bundle.open(find_bundle("sam3i-nano")).manifest.notes == (
        "trained on drawn shapes only, not on photographs",
    )


@pytest.mark.parametrize(
    "name", ["LICENSE", "tokenizer.json", "onnx-fp32/detector.onnx", "onnx-fp32/image_encoder.data"]
)
def test_missing_file(broken, name):
    (broken / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        Bundle.open(broken).verify()


def test_every_flipped_byte_is_found(broken):
    manifest = read_manifest(broken)
    for name in manifest.files:
        path = broken / name
        good = path.read_bytes()
        for place in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            with pytest.raises(ArtifactError, match=f"{name} was changed, its sha256 is"):
                Bundle.open(broken).verify()
        path.write_bytes(good)
    Bundle.open(broken).verify()


def _damage(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_only_what_is_asked_for_is_read(broken):
    """A damaged file stops whoever asks for it, and nobody else."""
    opened = Bundle.open(broken)
    _damage(broken / "onnx-fp32" / "text_encoder.simple.data")
    assert opened.tokenizer().encode("star").ids.shape == (32,)
    assert opened.weights() is None
    with pytest.raises(ArtifactError, match=r"text_encoder\.simple\.data was changed"):
        opened.graphs("onnx-fp32")
    _damage(broken / "tokenizer.json")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json was changed"):
        Bundle.open(broken).tokenizer()


def test_a_file_is_hashed_once(broken, monkeypatch):
    hashed, sha256 = [], bundles.sha256_of
    monkeypatch.setattr(bundles, "sha256_of", lambda path: hashed.append(path.name) or sha256(path))
    opened = Bundle.open(broken)
    assert not hashed
    assert opened.graphs("onnx-fp32") == opened.graphs("onnx-fp32")
    graphs = {path.name for path in (broken / "onnx-fp32").iterdir()}
    assert sorted(hashed) == sorted(graphs)
    opened.verify()
    assert sorted(hashed) == sorted({*graphs, "LICENSE", "tokenizer.json"})


def test_float_weights_are_verified(tiny_bundle, tmp_path):
    with new_bundle(tmp_path / "made", base=tiny_bundle) as folder:
        (folder.path / "weights").mkdir()
        (folder.path / "weights" / "base.safetensors").write_bytes(b"1234")
        folder.finish(variants={})
    assert Bundle.open(tmp_path / "made").weights() == tmp_path / "made" / "weights"
    _damage(tmp_path / "made" / "weights" / "base.safetensors")
    with pytest.raises(ArtifactError, match=r"base\.safetensors was changed"):
        Bundle.open(tmp_path / "made").weights()


@pytest.mark.parametrize("change", [-1, 1])
def test_other_size(broken, change):
    path = broken / "LICENSE"
    path.write_bytes(path.read_bytes()[:change] if change < 0 else path.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match=rf"LICENSE has {11 + change} bytes, want 11"):
        Bundle.open(broken).verify()


def test_newer_schema_asks_to_upgrade_whatever_else_it_holds(broken):
    (broken / "bundle.json").write_text('{"schema_version": 2, "something": "new"}')
    with pytest.raises(ArtifactError, match=r"schema version 2, this sam3i-edge reads up to 1: upgrade"):
        Bundle.open(broken)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "../outside",
        "onnx-fp32/../../outside",
        "a\\b",
        "c:/x",
        "./LICENSE",
        "a//b",
        "",
        ".",
        "bundle.json",
    ],
)
def test_paths_that_leave_or_are_not_plain(broken, path):
    _edit(broken, lambda manifest: manifest["files"].update({path: {"bytes": 0, "sha256": "0" * 64}}))
    with pytest.raises(ArtifactError, match=r"leaves the bundle|cannot list itself"):
        Bundle.open(broken)


def test_link_out_of_the_bundle(broken, tmp_path):
    outside = tmp_path / "LICENSE"
    shutil.move(broken / "LICENSE", outside)
    (broken / "LICENSE").symlink_to(outside)
    with pytest.raises(ArtifactError, match="LICENSE is a link that leaves the bundle"):
        Bundle.open(broken).verify()


def test_linked_folder_out_of_the_bundle(broken, tmp_path):
    shutil.move(broken / "onnx-fp32", tmp_path / "elsewhere")
    (broken / "onnx-fp32").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a link that leaves the bundle"):
        Bundle.open(broken).verify()


def test_a_link_to_a_whole_bundle_is_fine(tiny_bundle, tmp_path):
    (tmp_path / "link").symlink_to(tiny_bundle.root)
    opened = Bundle.open(tmp_path / "link").verify()
    assert opened.file("LICENSE") == tmp_path / "link" / "LICENSE"


def test_truncated_manifest(broken):
    text = (broken / "bundle.json").read_bytes()
    for length in (0, 1, len(text) // 2, len(text) - 3):
        (broken / "bundle.json").write_bytes(text[:length])
        with pytest.raises(ArtifactError, match=r"bundle\.json is damaged or no manifest") as raised:
            Bundle.open(broken)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["[]", "3", '"x"', "{}", '{"schema_version": "1"}', "[" * 5_000, b"\xff\xfe{"]
)
def test_other_json(broken, text):
    (broken / "bundle.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtifactError, match=r"bundle\.json"):
        Bundle.open(broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda m: m.pop("tokenizer"), "tokenizer: Field required"),
        (lambda m: m["preprocessing"].update(image_size=0), "preprocessing.image_size"),
        (lambda m: m["preprocessing"].update(std=[0.5, 0, 0.5]), "preprocessing.std.1"),
        (lambda m: m["thresholds"].update(score=1.5), "thresholds.score"),
        (lambda m: m["tokenizer"].update(pad_id=3), "tokenizer.pad_id"),
        (lambda m: m["tokenizer"].update(start_id=2**32), "tokenizer.start_id"),
        (lambda m: m["tokenizer"].update(end_id=-1), "tokenizer.end_id"),
        (lambda m: m["tokenizer"].update(context_length=2**63), "tokenizer.context_length"),
        (lambda m: m["preprocessing"].update(image_size=10**6), "preprocessing.image_size"),
        (lambda m: m["preprocessing"].update(mean=[0.5, 1e300, 0.5]), "preprocessing.mean.1"),
        (lambda m: m["preprocessing"].update(std=[1e-300, 0.5, 0.5]), "preprocessing.std.0"),
        (lambda m: m["thresholds"].update(mask_logit=1e308), "thresholds.mask_logit"),
        (lambda m: m["variants"]["onnx-fp32"].update(boxes=10**9), "variants.onnx-fp32.boxes"),
        (lambda m: m["files"].update({"é" * 128: m["files"]["LICENSE"]}), "a part of more than 255 bytes"),
        (lambda m: m["files"]["LICENSE"].update(sha256="x"), "files.LICENSE.sha256"),
        (lambda m: m["files"]["LICENSE"].update(bytes=True), "files.LICENSE.bytes"),
        (
            lambda m: m["license"].update(file="NOTICE"),
            "license.file names 'NOTICE', which `files` does not list",
        ),
        (lambda m: m["tokenizer"].update(file="../t.json"), r"tokenizer.file names '\.\./t.json'"),
        (lambda m: m.update(variants={}), "variants"),
        (lambda m: m["variants"]["onnx-fp32"]["graphs"].pop("detector"), "lacks the graph detector"),
        (lambda m: m["variants"]["onnx-fp32"].update(quant_spec="q.st"), "quant_spec names 'q.st'"),
        (lambda m: m["variants"]["onnx-fp32"]["graphs"].update(detector="/d.onnx"), "names '/d.onnx'"),
    ],
)
def test_manifest_that_does_not_fit(broken, change, message):
    _edit(broken, change)
    with pytest.raises(ArtifactError, match=message) as raised:
        Bundle.open(broken)
    assert "\n" not in str(raised.value)


def test_tokenizer_ids_that_do_not_fit(broken):
    _edit(broken, lambda manifest: manifest["tokenizer"].update(end_id=99_999))
    with pytest.raises(ArtifactError, match="end_id 99999 is outside the vocabulary"):
        Bundle.open(broken).tokenizer()


@pytest.mark.parametrize("kind", ["nothing", "a file", "a folder without bundle.json"])
def test_no_bundle(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "a file":
        path.write_text("x")
    elif kind != "nothing":
        path.mkdir()
    with pytest.raises(ArtifactError, match=f"is no bundle but {kind}"):
        Bundle.open(path)


def test_a_tokenizer_with_more_ids_than_the_model_has_rows(broken):
    rows = Bundle.open(broken).tokenizer().vocab_size
    _edit(broken, lambda manifest: manifest["model"].update(vocab_size=rows))
    Bundle.open(broken).tokenizer()
    _edit(broken, lambda manifest: manifest["model"].update(vocab_size=rows - 1))
    with pytest.raises(ArtifactError, match=rf"ids go to {rows - 1}, the model has {rows - 1} tokens"):
        Bundle.open(broken).tokenizer()


def test_unknown_variant_and_file(tiny_bundle):
    with pytest.raises(ArtifactError, match="no variant 'onnx-int8'; it has onnx-fp32"):
        tiny_bundle.graphs("onnx-int8")
    with pytest.raises(ArtifactError, match="no file 'weights'"):
        tiny_bundle.file("weights")


def test_find_a_folder(tiny_bundle, monkeypatch):
    assert find_bundle(tiny_bundle.root) == tiny_bundle.root
    assert find_bundle(str(tiny_bundle.root)) == tiny_bundle.root
    monkeypatch.chdir(tiny_bundle.root.parent)
    assert Bundle.open(find_bundle("tiny")).manifest.name == "tiny"


@pytest.mark.parametrize(
    "name",
    [
        "nope",
        "",
        "a/b/c",
        "/nowhere/at/all",
        "./models/x",
        "-/x",
        "~nobody-here/x",
        pytest.param("x" * 5_000, id="long"),
    ],
)
def test_unknown_model(name):
    expected = "no such folder" if "/" in name and "~" not in name else "unknown model"
    with pytest.raises(UnknownModel, match=expected):
        find_bundle(name)


def test_bundled_model_wins_over_a_folder_of_that_name(tmp_path, write_tiny_bundle, monkeypatch):
    bundled = write_tiny_bundle(tmp_path / "assets" / "sam3i-nano")
    write_tiny_bundle(tmp_path / "sam3i-nano")
    monkeypatch.setattr(bundles, "_ASSETS", tmp_path / "assets")
    monkeypatch.chdir(tmp_path)
    assert find_bundle("sam3i-nano") == bundled.root
    assert find_bundle("./sam3i-nano").resolve() == tmp_path / "sam3i-nano"


def test_bundled_model_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "_ASSETS", tmp_path)
    with pytest.raises(ArtifactError, match=r"'sam3i-nano' is no folder of .*: reinstall sam3i"):
        find_bundle("sam3i-nano")


def test_bundled_model_in_a_zip_file_says_what_to_unpack(tmp_path, monkeypatch):
    archive = tmp_path / "all.zip"
    archive.write_bytes(b"")
    monkeypatch.setattr(bundles, "_ASSETS", archive / "sam3i_edge" / "assets")
    with pytest.raises(ArtifactError, match=r"in .*/all\.zip: unpack sam3i_edge/assets/sam3i-nano from"):
        find_bundle("sam3i-nano")
