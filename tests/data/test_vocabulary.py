from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sam3i_edge.data.palette import COLORS, FILLS
from sam3i_edge.data.scenes import SIZES
from sam3i_edge.data.shapes import SHAPES
from sam3i_edge.data.vocabulary import VOCABULARIES, load_vocabulary, numbered
from sam3i_edge.errors import DataError


def test_one_and_many() -> None:
    assert numbered("that look[s|] like [a gem|gems]", False) == "that looks like a gem"
    assert numbered("that look[s|] like [a gem|gems]", True) == "that look like gems"
    assert numbered("left of the bowl", True) == "left of the bowl"


def test_the_drawn_shapes_have_all_their_words() -> None:
    shapes = load_vocabulary("shapes")
    assert shapes.attributes == {"category": SHAPES, "color": COLORS, "size": SIZES, "fill": FILLS}
    assert {category for riddle in shapes.riddles for category in riddle.categories} == set(SHAPES)
    noun = re.compile(rf"\b(?:{'|'.join(SHAPES)})(?:s|es)?\b")
    assert not [phrase for riddle in shapes.riddles for phrase in riddle.phrases if noun.search(phrase)]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_usual_word_is_the_usual_one(name: str) -> None:
    vocabulary = load_vocabulary(name)
    for category, entry in vocabulary.categories.items():
        assert entry.nouns[0].weight == max(noun.weight for noun in entry.nouns), category
    starts = re.compile(r"(with|without|that|shaped|made|used|balanced|to|baked|powered|patterned) ")
    phrases = [phrase for riddle in vocabulary.riddles for phrase in riddle.phrases]
    assert not [phrase for phrase in phrases if not starts.match(phrase)]
    answers = [(phrase, riddle.categories) for riddle in vocabulary.riddles for phrase in riddle.phrases]
    assert len(dict(answers)) == len(set(answers)), "a phrase has two answers"


def test_names_of_other_files() -> None:
    coco, tabletop = load_vocabulary("coco"), load_vocabulary("tabletop")
    assert len(coco.categories) == 80
    assert len(tabletop.categories) == 30
    assert tabletop.category_of("Cell_Phone") == "phone"
    assert tabletop.category_of("loaves of bread") == "bread"
    assert coco.category_of("Sofa") == "couch"
    assert coco.category_of("unicorn") is None
    assert coco.value_of("color", "Gray") == "grey"
    assert coco.value_of("color", "plaid") is None
    assert coco.value_of("mood", "grey") is None
    assert [noun[:2] for noun in coco.nouns("wolf's box")] == [("wolf's box", "wolf's boxes")]
    assert tabletop.confusable("mug") == ("cup",)
    assert tabletop.mixed == "object"


CORRECT: dict[str, Any] = {
    "name": "farm",
    "kind": [["kind"]],
    "things": [["animal", "animals"]],
    "categories": {
        "cow": {"nouns": [["cow", "cows"]]},
        "hen": {"nouns": [["hen", "hens"]], "confusable": ["cow"]},
    },
    "properties": {"color": {"names": [["color"]], "values": {"red": {}, "grey": {"words": [["gray"]]}}}},
    "riddles": [{"categories": ["hen"], "unclear": ["cow"], "phrases": ["that lay[s|] eggs"]}],
}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("categories.cow.nouns", [["hen", "cows"]], "the noun 'hen' is there twice"),
        ("categories.cow.names", ["hens"], "the noun 'hens' is there twice"),
        ("categories.cow.nouns", [], "categories.cow.nouns: .* at least 1"),
        ("categories.cow.nouns", [["cow", ""]], r"categories.cow.nouns\[0\]\[1\]: .*pattern.* got ''"),
        ("categories.cow.nouns", [["cow", "cows", 0]], "greater than 0"),
        ("categories.hen.confusable", ["pig"], "unknown category 'pig'; known: cow, hen"),
        ("categories.hen.confusable", ["hen"], "'hen' is confusable with itself"),
        ("categories", {"cow": {"nouns": [["cow", "cows"]]}}, "at least 2"),
        ("things", [["cow", "animals"]], "the noun 'cow' is both a category's and a word for any object"),
        ("properties.color.values.grey.words", [["red"]], "the adjective 'red' is there twice"),
        ("properties.color.values", {"red": {}}, "at least 2"),
        ("properties.color.names", [], "at least 1"),
        ("properties.color.riddles", 0.5, "'red' has no riddle"),
        ("properties.color.groups", [{"values": ["blue"], "phrases": ["with x"]}], "unknown value 'blue'"),
        ("properties.color.weight", 1, "properties.color.weight: Extra inputs"),
        ("properties.category", {"names": [["sort"]], "values": {"a": {}, "b": {}}}, "named 'category'"),
        ("riddles", [{"categories": ["pig"], "phrases": ["that grunt[s|]"]}], "unknown category 'pig'"),
        ("riddles", [{"categories": ["hen"], "phrases": []}], "at least 1"),
        ("riddles", [{"categories": ["hen"], "phrases": ["like a hen"]}], "names what it describes: 'hen'"),
        ("riddles", [{"categories": ["hen"], "phrases": ["that lay[s eggs"]}], "bracket without its pair"),
        (
            "riddles",
            [{"categories": ["hen"], "unclear": ["hen"], "phrases": ["that lay[s|] eggs"]}],
            "both fits the riddle",
        ),
        ("name", None, "name: must be a valid string"),
    ],
)
def test_a_wrong_vocabulary_is_refused_in_a_line(tmp_path: Path, place: str, value: Any, said: str) -> None:
    content = json.loads(json.dumps(CORRECT))
    part = content
    *way, last = place.split(".")
    for step in way:
        part = part[step]
    part[last] = value
    path = tmp_path / "farm.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said) as caught:
        load_vocabulary(path)
    assert str(caught.value).startswith(f"vocabulary {path}: ")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "farm.json"
    path.write_text(json.dumps(CORRECT))
    assert load_vocabulary(path).name == "farm"
    with pytest.raises(DataError, match=r"vocabulary nowhere: No such file .* shapes, tabletop, coco or"):
        load_vocabulary("nowhere")
    path.write_text(json.dumps(CORRECT).replace('"hen": {"nouns"', '"cow": {"nouns"'))
    with pytest.raises(DataError, match="the name 'cow' is there twice"):
        load_vocabulary(path)
    path.write_bytes(b'{"name": \xff}')
    with pytest.raises(DataError, match=r"vocabulary .*farm.json: .*utf-8"):
        load_vocabulary(path)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"vocabulary .*farm.json: must be"):
        load_vocabulary(path)
