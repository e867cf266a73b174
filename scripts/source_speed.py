"""Prints what it costs to open an annotation file as large as COCO's: seconds, memory, scenes a second.

    python scripts/source_speed.py --pictures 118287 --annotations 860001

Writes such a file with made-up outlines into a temporary folder, with an empty file for every picture.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary

HEIGHT, WIDTH = 480, 640


def write(folder: Path, pictures: int, annotations: int) -> Path:
    """The file; nothing reads the pictures, which only have to be there."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    path = folder / "instances.json"
    with path.open("w") as file:
        file.write('{"info": {}, "images": [')
        for number in range(pictures):
            name = f"{number:012d}.png"
            (folder / "images" / name).touch()
            entry = {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            file.write(("," if number else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for number in range(annotations):
            angles = np.linspace(0, 2 * np.pi, 4 + int(rng.gamma(2, 11)), endpoint=False)
            middle, radius = rng.uniform((50, 50), (WIDTH - 50, HEIGHT - 50)), rng.uniform(5, 50)
            points = middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            entry = {
                "segmentation": [np.round(points, 2).ravel().tolist()],
                "iscrowd": 0,
                "image_id": int(rng.integers(pictures)),
                "category_id": int(rng.integers(1, 81)),
                "id": number,
            }
            file.write(("," if number else "") + json.dumps(entry))
        names = load_vocabulary("coco").categories
        categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return path


def main() -> None:
    """Writes the file, opens it, and prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=118_287)
    parser.add_argument("--annotations", type=int, default=860_001)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), given.pictures, given.annotations)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        source = open_source(path, load_vocabulary("coco"))
        opened, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        packed = pickle.dumps(source)
        start = time.process_time()
        pickle.loads(packed)
        unpacked = time.process_time() - start
        chosen = range(0, len(source), max(1, len(source) // 300))
        start = time.process_time()
        objects = sum(len(source.scene(number).objects) for number in chosen)
        each = (time.process_time() - start) / len(chosen)
        size = path.stat().st_size / 1e6
        print(f"{size:,.0f} MB, {given.annotations:,} annotations, {len(source):,} pictures")
        print(f"opened in {opened:.1f} s of one core")
        print(f"at most {peak / 1024:,.0f} MB of memory, {before / 1024:,.0f} before it was opened")
        print(f"pickled {len(packed) / 1e6:.1f} MB, opened by a worker in {unpacked:.2f} s")
        print(f"a scene of {objects / len(chosen):.1f} objects in {1000 * each:.1f} ms")


if __name__ == "__main__":
    main()
