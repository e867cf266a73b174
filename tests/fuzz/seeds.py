"""The good files that fuzzing damages, all small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any


def make_seeds(folder: Path, write_tiny_bundle: Callable[..., object], tiny: Any) -> None:
    """Writes the good files that cases damage."""
    from sam3i_edge.data.annotations import write_scenes
    from sam3i_edge.model.sam3i import SAM3I
    from sam3i_edge.model.weights import save_weights

    write_tiny_bundle(folder / "bundle", boxes=3)
    write_scenes(folder / "data", 3, 0)
    shutil.copyfile(folder / "data" / "annotations.json", folder / "annotations.json")
    shutil.copyfile(next((folder / "data" / "images").iterdir()), folder / "picture.png")
    _make_sources(folder)
    save_weights(SAM3I(tiny.TINY), folder / "model")
    (folder / "config.json").write_text(json.dumps(tiny.tiny_config().to_json()))


def _make_sources(folder: Path) -> None:
    """A file of each kind, about the pictures of `data/images`."""
    import pyarrow
    from pyarrow import parquet

    from sam3i_edge.data.sources import open_source, write_scene_file
    from sam3i_edge.data.vocabulary import load_vocabulary
    from sam3i_edge.masks import rle

    source = open_source(folder / "data", load_vocabulary("shapes"))
    whole = folder / "whole sources"
    scenes = [source.scene(number) for number in range(len(source))]
    write_scene_file(whole, (replace(scene, image=scene.pixels()) for scene in scenes[:1]))
    line = json.loads((whole / "scenes.jsonl").read_text())
    objects = range(len(line["objects"]))
    line |= {"file": source.file_name(0), "listed": ["star"], "unsure": [[0, "behind", 1]], "judged": ["on"]}
    line["relations"] = [[one, "on", two] for one in objects for two in objects if one < two]
    (whole / "scenes.jsonl").write_text(json.dumps(line))
    images, annotations, references, rows = [], [], [], []
    for number, scene in enumerate(scenes):
        height, width = scene.size
        lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
        name = source.file_name(number)
        images.append({"id": number, "file_name": name, "height": height, "width": width} | lists)
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            outline = [x0, y0, x1, y0, x1, y1, x0, y1]
            identity, runs = len(annotations), rle.encode(thing.mask)
            annotations.append({
                "id": identity, "image_id": number, "category_id": 1, "iscrowd": identity % 5 == 4,
                "segmentation": [outline] if identity % 2 else runs, "attribute_ids": [1], "unknown_color": 0,
            })  # fmt: skip
            said = [{"sent": "the left one", "raw": "Left"}]
            references.append(
                {"ref_id": identity, "ann_id": identity, "image_id": number, "split": "a", "sentences": said}
            )
            rows.append({"file_name": name, "answer": ["the left one"], "segmentation": outline})
    whole_file = {
        "images": images, "annotations": annotations,
        "categories": [{"id": 1, "name": "mug"}, {"id": 2, "name": "part:of", "supercategory": "PART"}],
        "attributes": [{"id": 1, "name": "red"}], "attr_type_to_attr_idxs": {"color": [1]},
    }  # fmt: skip
    (whole / "instances.json").write_text(json.dumps(whole_file))
    (whole / "refs.json").write_text(json.dumps(references))
    parquet.write_table(pyarrow.Table.from_pylist(rows), whole / "table.parquet")
    shutil.copytree(whole, folder / "sources")
