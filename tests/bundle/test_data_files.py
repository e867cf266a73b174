"""What a graph reads beside its own file, and what is refused because the manifest does not list it."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3i_edge.bundle.data_files import data_files
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import GRAPHS, Variant
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.errors import ArtifactError


def _external(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, f"{name}.data", offset=0, length=16)
    tensor.ClearField("raw_data")
    return tensor


def _hidden_everywhere() -> onnx.ModelProto:
    """External data at every place where ONNX allows a tensor, each under a name of its own."""
    constant = helper.make_node("Constant", [], ["c"], value=_external("constant"))
    listed = helper.make_node("Odd", [], ["d"], many=[_external("one"), _external("two")])
    sparse = onnx.SparseTensorProto(values=_external("values"), indices=_external("indices"), dims=[4])
    lookup = helper.make_node("Constant", [], ["e"], sparse_value=sparse)
    branch = helper.make_graph([constant], "then", [], [], [_external("inner")])
    choice = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([listed, lookup, choice], "g", [], [], [_external("outer")])
    graph.sparse_initializer.append(onnx.SparseTensorProto(values=_external("rare"), dims=[4]))
    function = helper.make_function("d", "F", [], ["z"], [constant], [])
    function.node[0].attribute[0].t.CopyFrom(_external("function"))
    model = helper.make_model(graph, functions=[function])
    model.training_info.add().algorithm.initializer.append(_external("trained"))
    return model


NAMES = ["constant", "one", "two", "values", "indices", "inner", "outer", "rare", "function", "trained"]


def test_external_data_is_found_wherever_onnx_allows_a_tensor(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "g.onnx").write_bytes(_hidden_everywhere().SerializeToString())
    wanted = sorted(f"v/{name}.data" for name in NAMES)
    assert data_files(tmp_path, "onnxruntime", "v/g.onnx", wanted) == wanted
    for name in NAMES:
        others = [other for other in wanted if other != f"v/{name}.data"]
        with pytest.raises(ArtifactError, match=rf"reads 'v/{name}\.data', which `files` does not list"):
            data_files(tmp_path, "onnxruntime", "v/g.onnx", others)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/hostname", "a/../../secret", "*/_ORT_MEM_ADDR_/*", ""]
)
def test_data_that_leaves_the_folder_is_refused(tmp_path, location):
    model = helper.make_model(helper.make_graph([], "g", [], [], [_external("w")]))
    model.graph.initializer[0].external_data[0].value = location
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="`files` does not list"):
        data_files(tmp_path, "onnxruntime", "g.onnx", ["g.onnx", "w.data", "secret"])


def test_cut_and_changed_files_give_one_error_or_none(tmp_path):
    content = _hidden_everywhere().SerializeToString()
    wanted = [f"{name}.data" for name in NAMES]
    rng = np.random.default_rng(0)
    refused = 0
    for turn in range(600):
        changed = bytearray(content[: rng.integers(1, len(content))] if turn % 2 else content)
        for place in rng.integers(0, len(changed), 3):
            changed[place] = rng.integers(0, 256)
        (tmp_path / "g.onnx").write_bytes(changed)
        try:
            data_files(tmp_path, "onnxruntime", "g.onnx", wanted)
        except ArtifactError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    "content", [b"graph", b"\x3a", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b"]
)
def test_what_is_no_protobuf_message(tmp_path, content):
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot read the graph .*: it is "):
        data_files(tmp_path, "onnxruntime", "g.onnx", [])


def test_an_openvino_graph_has_its_bin(tmp_path):
    (tmp_path / "g.xml").write_text("<net/>")
    assert data_files(tmp_path, "openvino", "g.xml", ["g.xml", "g.bin"]) == ["g.bin"]
    with pytest.raises(ArtifactError, match=r"reads 'g\.bin'"):
        data_files(tmp_path, "openvino", "g.xml", ["g.xml"])


def test_a_core_ml_package_holds_nothing_that_is_not_listed(tmp_path):
    (tmp_path / "p.mlpackage" / "Data").mkdir(parents=True)
    for name in ("Manifest.json", "Data/weight.bin"):
        (tmp_path / "p.mlpackage" / name).write_text("x")
    listed = ["p.mlpackage/Manifest.json", "p.mlpackage/Data/weight.bin"]
    assert sorted(data_files(tmp_path, "coreml", "p.mlpackage", listed)) == sorted(listed)
    with pytest.raises(ArtifactError, match=r"reads 'p\.mlpackage/Data/weight\.bin'"):
        data_files(tmp_path, "coreml", "p.mlpackage", listed[:1])


def test_an_eager_graph_has_its_weights(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "base.safetensors").write_text("x")
    (tmp_path / "g.json").write_text(json.dumps({"source": "weights"}))
    assert data_files(tmp_path, "eager", "g.json", ["weights/base.safetensors"]) == [
        "weights/base.safetensors"
    ]
    with pytest.raises(ArtifactError, match=r"reads 'weights/base\.safetensors'"):
        data_files(tmp_path, "eager", "g.json", [])
    (tmp_path / "g.json").write_text(json.dumps({"source": "quant/int8.safetensors"}))
    listed = ["quant/int8.safetensors", "quant/int8.json"]
    assert data_files(tmp_path, "eager", "g.json", listed) == listed


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"source": 3}', "[" * 100_000])
def test_an_eager_graph_that_is_none(tmp_path, content):
    (tmp_path / "g.json").write_text(content)
    with pytest.raises(ArtifactError, match="cannot read the graph"):
        data_files(tmp_path, "eager", "g.json", [])


def test_a_bundle_is_not_written_with_data_that_it_does_not_hold(tiny_bundle, tmp_path):
    def written():
        with new_bundle(tmp_path / "made", base=tiny_bundle) as folder:
            (folder.path / "v").mkdir()
            (folder.path / "v" / "g.onnx").write_bytes(_hidden_everywhere().SerializeToString())
            graphs = dict.fromkeys(GRAPHS, "v/g.onnx")
            folder.finish(variants={"v": Variant(runtime="onnxruntime", precision="p", graphs=graphs)})

    with pytest.raises(ArtifactError, match="does not list"):
        written()
    assert not list(tmp_path.iterdir())


def test_unlisted_data_is_refused_when_the_variant_is_opened(tiny_bundle, tmp_path):
    import shutil

    root = shutil.copytree(tiny_bundle.root, tmp_path / "copy")
    manifest = json.loads((root / "bundle.json").read_text())
    del manifest["files"]["onnx-fp32/text_encoder.simple.data"]
    (root / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"simple\.onnx reads 'onnx-fp32/text_encoder\.simple\.data'"):
        Bundle.open(root).graphs("onnx-fp32")
