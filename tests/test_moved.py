import importlib
import subprocess
import sys

import pytest

from sam3i_edge._moved import MOVED

# In a process of its own: a module that is imported stays under both names.
_CHILD = """
import importlib, sys, warnings
import sam3i_edge
warnings.simplefilter("error")
for old, new in {pairs}:
    try:
        importlib.import_module(old)
    except DeprecationWarning as warning:
        assert new in str(warning), warning
    else:
        raise SystemExit(f"{{old}} did not warn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert importlib.import_module(old) is importlib.import_module(new), old
    assert sys.modules[new].__name__ == new and sys.modules[new].__spec__.name == new, new
"""


def test_an_old_name_warns_and_is_the_new_module():
    subprocess.run([sys.executable, "-c", _CHILD.format(pairs=list(MOVED.items()))], check=True)


@pytest.mark.parametrize("old", MOVED)
def test_nothing_stands_under_an_old_name(old):
    assert importlib.util.find_spec(MOVED[old]) is not None
    assert (
        importlib.machinery.PathFinder.find_spec(old, importlib.import_module("sam3i_edge").__path__) is None
    )
