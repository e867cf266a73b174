import json

import pytest

from sam3i_edge.data.annotations import read_annotations
from sam3i_edge.data.review.decisions import Decision, append_decision, now, read_decisions, reviewing
from sam3i_edge.data.review.merge import apply_decisions, image_id
from sam3i_edge.data.review.queue import read_queue
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle


def _decide(folder, number, decision, text=None, targets=()):
    append_decision(
        folder, Decision(id=f"item-{number}", decision=decision, text=text, targets=targets, time=now())
    )


def _reviewed(folder):
    numbers = {image_id(f"item-{number}"): number for number in range(4)}
    return {
        numbers[record.image_id]: record
        for record in read_annotations(folder / "annotations.json")
        if record.image_id in numbers
    }


def test_bad_lines_are_named_by_number_and_the_others_read(folder, lines):
    broken = {**lines[1], "id": "x", "targets": [{**lines[1]["targets"][0], "counts": "0"}]}
    other_size = {**lines[1], "id": "y", "size": [10, 10]}
    outside = {**lines[1], "id": "z", "file": "images/../../secret.png"}
    numbers = {**lines[1], "id": "v", "numbers": [1]}
    rows = [lines[0], broken, other_size, outside, lines[0], {"id": "w"}, lines[2], numbers]
    text = "\n".join(json.dumps(row) for row in rows) + '\nnot json\n{"id": "item-3", "file"'
    (folder / "review.jsonl").write_text("\ufeff" + text)
    queue = read_queue(folder)
    assert list(queue.items) == ["item-0", "item-2"]
    assert {problem.partition(":")[0] for problem in queue.problems} == {
        f"review.jsonl, line {number}" for number in (2, 3, 4, 5, 6, 8, 9, 10)
    }
    assert "counts cover" in next(problem for problem in queue.problems if "line 2" in problem)


def test_run_lengths_as_lists_are_read_too(folder, lines):
    plain = {
        **lines[0],
        "targets": [
            {**mask, "counts": rle.decompress(mask["counts"]).tolist()} for mask in lines[0]["targets"]
        ],
    }
    (folder / "review.jsonl").write_text(json.dumps(plain))
    assert read_queue(folder).items["item-0"].targets[0].counts == lines[0]["targets"][0]["counts"]


def test_the_last_line_of_an_item_counts_and_undo_takes_it_back(folder):
    items = read_queue(folder).items
    for kind in ("accept", "reject", "undo", "undo", "undo", "accept"):
        _decide(folder, 0, kind, "a" if kind == "accept" else None)
        _decide(folder, 1, "reject")
    standing = read_decisions(folder, items).standing
    assert {name: line.decision for name, line in standing.items()} == {
        "item-0": "accept",
        "item-1": "reject",
    }


def test_a_file_that_was_cut_or_edited_loses_only_its_bad_lines(folder, lines):
    items = read_queue(folder).items
    _decide(folder, 0, "accept", "a", tuple(items["item-0"].targets))
    path = folder / "decisions.jsonl"
    path.write_text(
        path.read_text()
        + 'rubbish\n\n{"id": "item-7", "decision": "reject", "time": "2026-01-01T00:00:00"}\n'
    )
    path.write_bytes(path.read_bytes() + b'{"id": "item-1", "decision": "rej')
    _decide(folder, 2, "reject")
    decided = read_decisions(folder, items)
    assert list(decided.standing) == ["item-0", "item-2"]
    assert sorted(problem.partition(":")[0] for problem in decided.problems) == [
        f"decisions.jsonl, line {number}" for number in (2, 4, 5)
    ]
    assert b'"rej\n{' in path.read_bytes()


def test_masks_of_another_picture_are_not_taken(folder):
    items = read_queue(folder).items
    _decide(folder, 0, "mend", "a", ({"size": [2, 2], "counts": rle.compress([4])},))
    decided = read_decisions(folder, items)
    assert not decided.standing
    assert "another size" in decided.problems[0]


def test_accepted_and_mended_items_become_records(folder, lines):
    before = read_annotations(folder / "annotations.json")
    items = read_queue(folder).items
    _decide(folder, 0, "accept", lines[0]["text"], items["item-0"].targets)
    _decide(folder, 1, "mend", "every round one", items["item-1"].objects[:1])
    _decide(folder, 2, "reject")
    applied = apply_decisions(folder)
    assert (applied.accepted, applied.mended, applied.rejected, applied.undecided) == (1, 1, 1, 1)
    after = read_annotations(folder / "annotations.json")
    assert after[: len(before)] == before
    accepted, mended = after[len(before) :]
    assert (accepted.simple, accepted.complex, accepted.concept) == ([lines[0]["text"]], [], [])
    assert (accepted.file_name, accepted.granularity) == ("000000.png", "one")
    assert (accepted.masks() == [rle.decode(mask) for mask in lines[0]["targets"]]).all()
    assert (mended.complex, mended.granularity) == (["every round one"], "one")
    assert (mended.masks() == [rle.decode(lines[1]["targets"][0])]).all()


def test_what_others_targets_make_of_a_granularity(folder, lines):
    items = read_queue(folder).items
    _decide(folder, 1, "mend", "new words", items["item-1"].targets)
    _decide(folder, 2, "mend", "none of them", ())
    _decide(folder, 3, "mend", "several", items["item-3"].objects[:2])
    apply_decisions(folder)
    found = {n: record.granularity for n, record in _reviewed(folder).items()}
    assert found == {1: "subset", 2: "none", 3: None}


def test_applying_again_adds_nothing_and_takes_out_what_was_undone(folder, lines):
    untouched = (folder / "annotations.json").read_bytes()
    _decide(folder, 0, "accept", lines[0]["text"], read_queue(folder).items["item-0"].targets)
    apply_decisions(folder)
    once = (folder / "annotations.json").read_bytes()
    apply_decisions(folder)
    assert (folder / "annotations.json").read_bytes() == once != untouched
    _decide(folder, 0, "undo")
    apply_decisions(folder)
    assert (folder / "annotations.json").read_bytes() == untouched


def test_a_folder_under_review_is_not_applied(folder):
    with reviewing(folder), pytest.raises(DataError, match="under review already"):
        apply_decisions(folder)
    (folder / "annotations.json").unlink()
    with pytest.raises(DataError, match=r"annotations\.json"):
        apply_decisions(folder)
