import re
import subprocess
import sys
from pathlib import Path

import pytest

import sam3i_edge
from sam3i_edge import errors


def test_all_is_what_is_public():
    listed = {name for name in dir(sam3i_edge) if not name.startswith("_")}
    # Importing a submodule binds its name; what the package itself offers is in __all__.
    code = "import sam3i_edge; print(*(n for n in dir(sam3i_edge) if not n.startswith('_')))"
    fresh = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert set(sam3i_edge.__all__) - {"__version__"} <= listed
    assert fresh - {"annotations", "importlib", "os", "sys", "TYPE_CHECKING"} == {
        *("Info", "Result", "Scene", "Segmenter", "Stream", "errors")
    }


@pytest.mark.parametrize("name", sam3i_edge.__all__)
def test_every_name_loads(name):
    assert getattr(sam3i_edge, name) is not None


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        sam3i_edge.Segmentor  # noqa: B018


def test_version_is_the_one_that_is_built():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", sam3i_edge.__version__)
    project = Path(__file__).parents[1] / "pyproject.toml"
    static = re.search(r'(?m)^version = "([^"]+)"', project.read_text()) if project.exists() else None
    assert static is None or static[1] == sam3i_edge.__version__


def test_every_error_is_a_sam3i_error_and_in_the_tree():
    tree = errors.__doc__
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, errors.Sam3iError)
            assert re.search(rf"(?m)^\s*{name}\b", tree), name
