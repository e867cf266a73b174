import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sam3i_edge.data.language_model.answers import BadAnswer, read_answer


class Numbers(BaseModel):
    numbers: list[int]


@pytest.mark.parametrize(
    "text",
    [
        '{"numbers": [1, 2]}',
        'Sure! Here it is:\n```json\n{"numbers": [1, 2]}\n```\nAnything else?',
        '<think>{"numbers": maybe {1}</think> {"numbers": [1, 2]}',
        '{"other": 1} {"numbers": [1, 2]} and again {"numbers": [1, 2]}',
        '\ufeff{"numbers": [1, 2], "note": "{}"}',
    ],
)
def test_finds_the_one_object_whatever_stands_around_it(text):
    assert read_answer(text, Numbers).numbers == [1, 2]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no JSON object"),
        ("the numbers are 1 and 2", "no JSON object"),
        ('{"numbers": [1, 2', "no JSON object"),
        ('{"numbers": "many"}', "numbers: must be a valid list"),
        ('{"numbers": [1]} or {"numbers": [2]}', "2 answers that differ"),
        ("{" * 20_000, "no JSON object"),
        ('{"a":' * 20_000, "no JSON object"),
    ],
)
def test_says_what_is_wrong_with_an_answer(text, match):
    with pytest.raises(BadAnswer, match=match):
        read_answer(text, Numbers)


@given(st.text(), st.lists(st.integers()), st.text())
def test_text_without_an_object_around_one_changes_nothing(before, numbers, after):
    text = before.replace("{", "") + Numbers(numbers=numbers).model_dump_json() + after.replace("{", "")
    assert read_answer(text, Numbers).numbers == numbers
