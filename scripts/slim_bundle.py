"""Makes the bundled table model of a quantized bundle: its weights and one variant, without float graphs.

    sam3i-edge bundle RUN --out table --license LICENSE --name sam3i-table --half ...
    sam3i-edge quantize table --recipe int8w --out table-int8w
    python scripts/slim_bundle.py table-int8w onnx-int8w sam3i_edge/assets/sam3i-table

Graphs in float32 are twice the size of the weights that they can be made from again: `sam3i-edge export`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import MANIFEST

LEFT_OUT = ("onnx-", "openvino-", "quant/")


def main() -> None:
    """Copies what stays, and writes the manifest of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("variant")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle).verify()
    kept = bundle.manifest.variants[given.variant].model_copy(update={"quant_spec": None})
    files = {
        name: record
        for name, record in bundle.manifest.files.items()
        if name.startswith(f"{given.variant}/") or not name.startswith(LEFT_OUT)
    }
    for name in files:
        target = given.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.file(name), target)
    slim = bundle.manifest.model_copy(update={"files": files, "variants": {given.variant: kept}})
    (given.out / MANIFEST).write_text(slim.model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
