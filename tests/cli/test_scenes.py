import json

from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import read_annotations


def test_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["scenes", str(out), "--count", "3", "--seed", "5", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    records = read_annotations(out / "annotations.json")
    assert (facts["scenes"], facts["records"], facts["seed"]) == (3, len(records), 5)
    assert facts["instructions"] == sum(len(r.concept) + len(r.simple) + len(r.complex) for r in records)
    assert len(list((out / "images").glob("*.png"))) == 3


def test_a_seed_writes_the_same_files(tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["scenes", str(tmp_path / name), "-n", "2", "-s", seed]) == 0
    assert capsys.readouterr().out.startswith("2 scenes, ")
    a, b, c = ((tmp_path / name / "annotations.json").read_bytes() for name in "abc")
    assert a == b
    assert a != c
