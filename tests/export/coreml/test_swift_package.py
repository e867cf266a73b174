from __future__ import annotations

import json

import numpy as np
import pytest

from sam3i_edge.errors import ExportError
from sam3i_edge.export.coreml.mil_reference import MilProgram
from sam3i_edge.export.coreml.package import PackageOptions, file_name, write_package
from sam3i_edge.export.coreml.swift_package import write_swift_package
from sam3i_edge.model.graph_specs import graph_specs

GRAPHS = ("image_encoder", "text_encoder.concept", "text_encoder.simple", "text_encoder.complex", "detector")


@pytest.fixture(scope="module")
def swift(exported, packages, tmp_path_factory):
    out = tmp_path_factory.mktemp("apple")
    options = PackageOptions(image=exported.manifest.preprocessing)
    spec = next(spec for spec in graph_specs(exported.model) if spec.name == "image_encoder")
    image = write_package(spec, out, options)
    paths = {graph: packages / file_name(graph) for graph in GRAPHS} | {"image_encoder": image}
    write_swift_package(
        out / "swift", exported.manifest, exported.bundle / "tokenizer.json", paths, precision="fp16"
    )
    return out / "swift", paths


def test_swift_package_says_what_the_code_reads(exported, swift):
    folder, paths = swift
    content = json.loads((folder / "Sources/SAM3I/Resources/sam3i.json").read_text())
    assert content["models"] == {graph: path.stem for graph, path in paths.items()}
    assert content["image_size"] == 64
    code = (folder / "Sources/SAM3I/Configuration.swift").read_text()
    code += (folder / "Sources/SAM3I/Levels.swift").read_text()
    for key in [*content, *content["level_rules"]]:
        head, *rest = key.split("_")
        assert f"let {head}{''.join(part.capitalize() for part in rest)}:" in code
    tokenizer = (folder / "Sources/SAM3I/Resources/tokenizer.json").read_bytes()
    assert tokenizer == (exported.bundle / "tokenizer.json").read_bytes()
    listed = (folder / "Package.swift").read_text()
    assert all(f"Resources/{name}.json" in listed for name in ("sam3i", "tokenizer"))
    segmenter = (folder / "Sources/SAM3I/SAM3ISegmenter.swift").read_text()
    for spec in graph_specs(exported.model):
        names = set(spec.inputs) | {name for name in spec.outputs if name != "presence"}
        assert all(f'"{name}"' in segmenter for name in names - {"pixel_values"}), spec.name


def test_references_are_what_the_packages_give(swift):
    folder, paths = swift
    for graph, path in paths.items():
        with np.load(folder / "reference" / f"{graph}.npz") as file:
            inputs = {key[3:]: file[key] for key in file.files if key.startswith("in.")}
            wanted = {key[4:]: file[key] for key in file.files if key.startswith("out.")}
        got = MilProgram(path).run(inputs)
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(got[name], value)


def test_swift_needs_a_pixel_buffer_and_a_new_folder(exported, packages, swift, tmp_path):
    folder, paths = swift
    with pytest.raises(ExportError, match="takes no pixel buffer"):
        write_swift_package(
            tmp_path / "x",
            exported.manifest,
            exported.bundle / "tokenizer.json",
            {graph: packages / file_name(graph) for graph in GRAPHS},
            precision="fp16",
        )
    with pytest.raises(ExportError, match="exists"):
        write_swift_package(
            folder, exported.manifest, exported.bundle / "tokenizer.json", paths, precision="fp16"
        )
