from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam3i_edge.data.sources import json_elements
from sam3i_edge.data.sources.json_elements import EMPTY, WHOLE, elements
from sam3i_edge.errors import DataError

WHOLE_FILE = {
    "info": {"year": 2017, "text": 'a "quoted" \\ brace ] } , é 星'},
    "images": [{"id": 1, "name": "é.jpg"}, {"id": -2.5e3}, [1, [2, {"a": []}]], "x", 12345, None, True],
    "empty": [],
    "n": 1234567890,
}


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 1 << 24])
@pytest.mark.parametrize("indent", [None, 2])
def test_every_element_and_where_it_is(window: int, indent: int | None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_elements, "_CHUNK", window)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(WHOLE_FILE, ensure_ascii=False, indent=indent), encoding="utf-8")
    found = list(elements(path))
    values = [(e.key, e.value) for e in found]
    wanted = [("info", WHOLE_FILE["info"]), *(("images", v) for v in WHOLE_FILE["images"]), ("empty", [])]
    assert values == [*wanted, ("n", 1234567890)]
    assert [e.place for e in found] == [WHOLE, 0, 1, 2, 3, 4, 5, 6, EMPTY, WHOLE]
    content = path.read_bytes()
    for e in found:
        if e.place != EMPTY:
            assert json.loads(content[e.start : e.end]) == e.value


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf {"a": [1]}\n')
    assert [(e.value, e.start) for e in elements(path)] == [(1, 11)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a JSON object, begins with ''"),
        (b"[1]", "must be a JSON object, begins with '[1]'"),
        (b'{"a": [{"b": 1}', "ends too early; was it copied to its end"),
        (b'{"a": [{"b": 1}, ', "ends too early"),
        (b'{"a": "text', "unterminated string"),
        (b'{"a": [{"b": 1} {"c": 2}]}', "',' is missing before '{\"c\": 2}]}'"),
        (b'{"a" [1]}', "':' is missing"),
        (b'{1: [1]}', "a name must be a text"),
        (b'{"a": 1} x', "something follows the end"),
        (b'{"a": [nothing]}', "at byte 7: expecting value"),
        (b'{"a": ["\xff"]}', "it is no UTF-8"),
        (b'{"a": [' + b"[" * 200_000, "nested too deep"),
        (b'{"a": [' + b"1" * 5000 + b"]}", "limit"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_with_its_place(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        list(elements(path))
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_damage_in_the_middle_is_found_without_reading_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_elements, "_CHUNK", 1 << 16)
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": [{"b" 1}, ' + b'{"b": 1}, ' * 1_000_000 + b"1]}")
    reader = open
    read = []

    class Counted:
        def __init__(self, file):
            self.file = file

        def read(self, size):
            read.append(size)
            return self.file.read(size)

    with reader(path, "rb") as file, pytest.raises(DataError, match="delimiter"):
        list(json_elements._Reader(path, Counted(file)).members())
    assert sum(read) < 1 << 18


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        list(elements(tmp_path / "a.json"))
