import json
from importlib import metadata
from types import SimpleNamespace

import pytest

from sam3i_edge.install_hint import install_hint


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "pip install 'sam3i-edge[openvino]'"),
        ({"url": "file:///src", "dir_info": {}}, "pip install '.[openvino]' in the source tree"),
        (
            {"url": "file:///src", "dir_info": {"editable": True}},
            "pip install -e '.[openvino]' in the source tree",
        ),
        (
            {"url": "https://host/x", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "pip install 'sam3i-edge[openvino] @ git+https://host/x'",
        ),
        (
            {"url": "file:///d/sam3i_edge-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'sam3i-edge[openvino] @ file:///d/sam3i_edge-1-py3-none-any.whl'",
        ),
    ],
)
def test_the_line_fits_how_it_was_installed(monkeypatch, origin, line):
    text = None if origin is None else json.dumps(origin)
    found = SimpleNamespace(read_text={"direct_url.json": text}.get)
    monkeypatch.setattr(metadata, "distribution", lambda name: found)
    assert install_hint("openvino") == line
    assert install_hint() == line.replace("[openvino]", "")
    assert install_hint(options="--no-deps") == install_hint().replace("install", "install --no-deps", 1)


def test_a_tree_that_was_never_installed(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_hint("export,openvino") == "pip install '.[export,openvino]' in the source tree"
