"""Reads what `sam3i-edge label` wrote with each format's own reader, and compares it with the COCO file.

    python -m venv readers && readers/bin/pip install datumaro label-studio-sdk
    sam3i-edge label PICTURES --instructions FILE -o LABELS -f coco -f cvat -f label-studio -f fiftyone
    readers/bin/python scripts/check_label_formats.py LABELS

COCO, also that of FiftyOne's folder, is read by pycocotools, CVAT's XML by datumaro, Label Studio's tasks by
the converter of its SDK, to COCO. An instance is found again where its category is the same and its mask has
an IoU of 0.5 or more; the table has how many were, and the least and mean IoU of those. These readers need
older versions of packages than this project has, so they have an environment of their own. YOLO's text is
read by supervision, in tests/label/test_formats.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import datumaro
import numpy as np
from label_studio_sdk.converter import Converter
from pycocotools.coco import COCO

Found = dict[str, list[tuple[str, np.ndarray]]]  # picture's stem -> category and mask of each instance


def main() -> int:
    """Reads, compares, and gives 1 where something is missing."""
    labels = Path(sys.argv[1])
    want = _coco(labels / "coco.json")
    found = {
        "cvat": _cvat(labels),
        "fiftyone": _coco(labels / "fiftyone" / "labels.json"),
        "label-studio": _label_studio(labels),
    }
    total = sum(map(len, want.values()))
    print(f"| format | instances of {total} | least IoU | mean IoU |\n|---|---|---|---|")
    whole = True
    for name, its in found.items():
        ious = [iou for stem, masks in want.items() for iou in _paired(masks, its.get(stem, []))]
        extra = sum(map(len, its.values())) - len(ious)
        whole &= len(ious) == total and not extra
        print(f"| {name} | {len(ious)} | {min(ious, default=0):.4f} | {np.mean(ious or [0]):.4f} |")
    return 0 if whole else 1


def _paired(want: list[tuple[str, np.ndarray]], found: list[tuple[str, np.ndarray]]) -> list[float]:
    left, ious = list(found), []
    for category, mask in want:
        best = max(
            ((_iou(mask, other), n) for n, (name, other) in enumerate(left) if name == category),
            default=(0, -1),
        )
        if best[0] >= 0.5:
            ious.append(best[0])
            left.pop(best[1])
    return ious


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _coco(path: Path) -> Found:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    return {
        Path(image["file_name"].rpartition("?d=")[2]).stem: [
            (coco.cats[one["category_id"]]["name"], coco.annToMask(one).astype(bool))
            for one in coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        ]
        for number, image in coco.imgs.items()
    }


def _cvat(labels: Path) -> Found:
    """Datumaro wants the pictures beside the file, which CVAT does not."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(labels / "cvat.xml", folder)
        shutil.copytree(labels / "fiftyone" / "data", Path(folder) / "images")
        data = datumaro.Dataset.import_from(folder, "cvat")
        names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
        return {
            Path(item.id).stem: [(names[one.label], np.asarray(one.image, bool)) for one in item.annotations]
            for item in data
        }


def _label_studio(labels: Path) -> Found:
    """The predictions as if a person had accepted them, through the SDK's export to COCO."""
    tasks = json.loads((labels / "label-studio.json").read_text())
    for number, task in enumerate(tasks, start=1):
        task |= {"id": number, "annotations": [{"id": number, **task.pop("predictions")[0]}]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tasks.json").write_text(json.dumps(tasks))
        converter = Converter(str(labels / "label-studio.xml"), folder, download_resources=False)
        converter.convert_to_coco(str(Path(folder) / "tasks.json"), folder, is_dir=False)
        return _coco(Path(folder) / "result.json")


if __name__ == "__main__":
    sys.exit(main())
