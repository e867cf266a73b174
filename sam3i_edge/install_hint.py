"""The line that installs this package, or adds an extra, by how this copy of it was installed."""

from __future__ import annotations

import json
from importlib import metadata


def install_hint(extras: str = "", *, options: str = "") -> str:
    """Gives the command that adds extras to this installation, or what it itself lacks.

    Args:
        extras: names in the way of pip, such as "openvino" or "export,openvino"; none for the base.
        options: of pip, such as "--no-deps".
    """
    named, pip = f"[{extras}]" if extras else "", f"pip install {options} " if options else "pip install "
    try:
        text = metadata.distribution("sam3i-edge").read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # run from the tree, without being installed
        return f"{pip}'.{named}' in the source tree"
    if text is None:  # from an index
        return f"{pip}'sam3i-edge{named}'"
    origin = json.loads(text)
    if "vcs_info" in origin:
        return f"{pip}'sam3i-edge{named} @ {origin['vcs_info']['vcs']}+{origin['url']}'"
    if "dir_info" in origin:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"{pip}{editable}'.{named}' in the source tree"
    return f"{pip}'sam3i-edge{named} @ {origin['url']}'"
