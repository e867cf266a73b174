"""The line that adds an extra, by how this copy of the package was installed."""

from __future__ import annotations

import json
from importlib import metadata


def install_hint(extras: str) -> str:
    """Gives the command that adds extras to this installation.

    Args:
        extras: names in the way of pip, such as "openvino" or "export,openvino".
    """
    try:
        text = metadata.distribution("sam3i-edge").read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # run from the tree, without being installed
        return f"pip install '.[{extras}]' in the source tree"
    if text is None:  # from an index
        return f"pip install 'sam3i-edge[{extras}]'"
    origin = json.loads(text)
    if "vcs_info" in origin:
        return f"pip install 'sam3i-edge[{extras}] @ {origin['vcs_info']['vcs']}+{origin['url']}'"
    if "dir_info" in origin:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}'.[{extras}]' in the source tree"
    return f"pip install 'sam3i-edge[{extras}] @ {origin['url']}'"
