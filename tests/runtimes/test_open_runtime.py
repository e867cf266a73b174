import re
import sys
from pathlib import Path

import pytest

from sam3i_edge import runtimes
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint


def test_unknown_runtime_lists_the_known_ones():
    with pytest.raises(RuntimeUnavailable, match="unknown runtime 'tflite'; choose from onnxruntime"):
        runtimes.open_runtime("tflite", Path("m"), "cpu")


def test_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "sam3i_edge.runtimes.ort", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        RuntimeUnavailable, match=rf"'onnxruntime' cannot be imported .*: {re.escape(install_hint())}"
    ):
        runtimes.probe("onnxruntime", "cpu")


@pytest.mark.parametrize("threads", [0, -1, 1025, 99_999_999])
def test_threads_are_a_number_that_starts(threads):
    with pytest.raises(ValueError, match=f"threads must be 1 to 1,024, got {threads:,}"):
        runtimes.open_runtime("onnxruntime", Path("m"), "cpu", threads=threads)
