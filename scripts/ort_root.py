"""Puts ONNX Runtime's headers and the library of its wheel into one folder, for -DORT_ROOT of native/.

    python scripts/ort_root.py FOLDER

The wheel has no headers, and no Debian or PyPI package has. The npm package of the runtime for Unity carries
the archive for Android, and that has them; they are of one version's API, which later libraries keep.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import onnxruntime

PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
ARCHIVE = "package/Plugins/Android/onnxruntime.aar"


def write_headers(folder: Path) -> None:
    """Fetches the package with npm and unpacks the headers into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=place, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(place).glob("*.tgz")
        with tarfile.open(packed) as outer:
            outer.extract(ARCHIVE, place, filter="data")
        with zipfile.ZipFile(Path(place, ARCHIVE)) as inner:
            for name in inner.namelist():
                if name.startswith("headers/") and name.endswith(".h"):
                    (folder / Path(name).name).write_bytes(inner.read(name))


def link_library(folder: Path) -> None:
    """Links the wheel's library under the names that a linker and a loader look for."""
    folder.mkdir(parents=True, exist_ok=True)
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(library)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write_headers(root / "include")
    link_library(root / "lib")
