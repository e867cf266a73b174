from __future__ import annotations

import json

import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.bundle.manifest import ROUTER
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.cli.app import main

FAST = ["--vocabulary", "shapes", "--unseen", "", "--scenes", "100"]
PICTURE = np.full((64, 64, 3), 200, np.uint8)


@pytest.mark.slow
def test_a_router_is_written_where_it_wins_and_nowhere_else(tmp_path, capsys):
    out = tmp_path / "routed"
    assert main(["router", "sam3i-nano", "-o", str(out), *FAST, "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert "training the router" in shown.err
    seen, unseen = found["rows"]
    assert (seen["name"], unseen["name"]) == ("wordings of training", "wordings never seen")
    lead = [sum(unseen["router"].values()) / 3, sum(unseen["rules"].values()) / 3]
    assert lead[0] >= lead[1] + 0.02
    bundle = Bundle.open(out).verify()
    kept = bundle.manifest.provenance
    assert kept["router_held_out"] == pytest.approx(lead[0], abs=1e-4)
    assert kept["rules_held_out"] == pytest.approx(lead[1], abs=1e-4)
    assert kept["note"] == Bundle.open(find_bundle("sam3i-nano")).manifest.provenance["note"]
    assert found["bytes"] == (out / ROUTER).stat().st_size < 300_000
    with Segmenter(out) as segmenter:
        result = segmenter.segment(PICTURE, "star")
        assert (result.level, result.level_chosen_by) == ("concept", "router")
        assert segmenter.segment(PICTURE, "the red star left of the ring").level == "simple"
    # In its own place, where the router is one of the bundle's files already; a lead that cannot be had.
    before = (out / ROUTER).read_bytes()
    assert main(["router", str(out), "-o", str(out), *FAST, "--overwrite", "--margin", "1"]) == 1
    assert "it must lead by 100 points, so the rules stay" in capsys.readouterr().err
    assert (out / ROUTER).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["routed"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--vocabulary", ""], 2, "a vocabulary"),
        (["--scenes", "3"], 2, "--scenes"),
        (["--margin", "2"], 2, "--margin"),
        (["--vocabulary", "nothing"], 1, "vocabulary nothing"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, arguments, code, told):
    assert main(["router", "sam3i-nano", "-o", str(tmp_path / "out"), *arguments]) == code
    err = capsys.readouterr().err
    assert told in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_weights_is_refused(tiny_bundle, tmp_path, capsys):
    assert main(["router", str(tiny_bundle.root), "-o", str(tmp_path / "out")]) == 1
    assert "has no float weights" in capsys.readouterr().err


def test_what_is_there_is_not_replaced(tiny_bundle, tmp_path, capsys):
    with new_bundle(tmp_path / "there", base=tiny_bundle) as folder:
        folder.finish(variants={})
    assert main(["router", "sam3i-nano", "-o", str(tmp_path / "there")]) == 1
    assert "exists already" in capsys.readouterr().err
