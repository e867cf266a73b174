from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from sam3i_edge.data.corpus import corpus, invented
from sam3i_edge.data.families import FAMILIES, HELD_OUT, SPELLED, TRAINED, TYPED, USUAL, worded
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.phrase import Adjective, Phrase, Tail, plain
from sam3i_edge.data.text_noise import one_letter, words_that_say_nothing
from sam3i_edge.data.vocabulary import Noun, load_vocabulary

STAR = Noun("star", "stars")
THING = Noun("thing", "things")
RED = Adjective("color", "red")
LEFT_OF_RING = Tail("relation", "left of the ring")

LARGEST = Phrase(form="size", count=1, universal=False, noun=STAR, superlative="largest")
RED_STAR = Phrase(form="whole", count=1, universal=False, noun=STAR, adjectives=(RED,))
BLUE_THINGS = Phrase(
    form="whole", count=3, universal=True, noun=THING, generic=True, adjectives=(Adjective("color", "blue"),)
)
NEAREST = Phrase(
    form="distance",
    count=1,
    universal=False,
    noun=Noun("circle", "circles"),
    tails=(Tail("distance", "closest to the square"),),
)
LEFT = Phrase(form="relation", count=2, universal=False, noun=STAR, tails=(LEFT_OF_RING,))
DRINK = Phrase(
    form="function", count=1, universal=False, noun=THING, generic=True, complement="that you drink from"
)
BOUNCE = Phrase(
    form="function", count=2, universal=False, noun=THING, generic=True, complement="that bounce[s|]"
)


def said(family: str, phrase: Phrase) -> set[str]:
    texts = {FAMILIES[family](phrase, Random(seed)) for seed in range(200)}
    return {text for text in texts if text is not None}


@pytest.mark.parametrize(
    ("family", "phrase", "text"),
    [
        ("which", LARGEST, "which star is the largest?"),
        ("which", NEAREST, "which circle is closest to the square?"),
        ("which", LEFT, "which stars are left of the ring?"),
        ("which", BOUNCE, "which things bounce?"),
        ("relative", RED_STAR, "the star which is colored red"),
        ("emphatic", BLUE_THINGS, "every single blue thing in the picture"),
        ("pronoun", BLUE_THINGS, "everything blue"),
        ("partitive", LARGEST, "the largest of the stars"),
        ("fronted", LEFT, "left of the ring, the stars"),
        ("terse", RED_STAR, "star, red"),
        ("where", LEFT, "where are the stars left of the ring?"),
        ("what", Phrase(form="relation", count=2, universal=False, noun=THING, generic=True,
                        tails=(LEFT_OF_RING,)), "what is left of the ring?"),
        ("topic", LARGEST, "as for the stars: the largest one"),
        ("indirect", LARGEST, "tell me which star is the largest"),
    ],
)  # fmt: skip
def test_a_family_says_what_people_say(family: str, phrase: Phrase, text: str) -> None:
    assert text in said(family, phrase)


def test_requests_hold_the_usual_wording() -> None:
    for family in ("command", "polite", "desire", "context", "specific", "statement"):
        assert any("the largest star" in text for text in said(family, LARGEST)), family


def test_what_a_family_cannot_say_it_leaves() -> None:
    assert not said("which", DRINK)  # "which thing you drink from" is no question
    assert not said("pronoun", RED_STAR)  # the noun would be lost
    assert not said("emphatic", RED_STAR)  # one of several
    assert not said("partitive", LEFT)
    in_the_middle = Tail("region", "in the middle")  # beside it what one drinks from would be lost
    assert said("what", replace(DRINK, form="region", tails=(in_the_middle,))) == set()
    assert said("what", replace(DRINK, adjectives=(RED,))) == set()
    assert said("what", replace(LARGEST, noun=THING, generic=True, adjectives=(RED,))) == set()
    assert said("what", replace(LARGEST, noun=THING, generic=True, tails=(LEFT_OF_RING,))) == {
        "what is the largest left of the ring?"
    }
    text, family = worded(DRINK, Random(1), {"which": 1.0})
    assert family == "plain"
    assert "drink" in text


@pytest.mark.parametrize("vocabulary", ["shapes", "tabletop"])
def test_every_family_is_met_and_loses_no_word_of_the_meaning(vocabulary: str) -> None:
    words = load_vocabulary(vocabulary)
    rng = np.random.default_rng(1)
    met = set()
    for number in range(400):
        family = list(FAMILIES)[number % len(FAMILIES)]
        written = write_instruction(
            invented(words, rng), words, rng, ("simple", "complex")[number % 2], wordings={family: 1.0}
        )
        if written is None or written.family == "typing error" or written.query is None:
            continue
        met.add(written.family)
        text = written.text.lower()
        if written.query.head.category is not None:
            nouns = words.nouns(written.query.head.category)
            forms = [form for noun in nouns for form in noun[:2]]
            assert any(form in text for form in (*forms, f"{written.query.head.category}-shaped")), text
        for modifier in written.query.head.modifiers:
            if modifier.phrase.startswith(("to ", "with ")):
                last = modifier.phrase.split()[-1].split("[")[0]
                assert last in text, (text, modifier.phrase)
        assert not any(slip in text for slip in ("  ", "[", "which which", "used to the")), text
    assert met >= set(FAMILIES) - {"typing error", "what", "pronoun"}


def test_held_out_families_are_never_trained_on() -> None:
    assert not set(HELD_OUT) & set(TRAINED)
    assert not set(HELD_OUT) & set(USUAL)
    assert set(HELD_OUT) | set(TRAINED) == set(FAMILIES)
    texts = " ".join(corpus(1, 3000, [load_vocabulary("tabletop")])).lower()
    assert not any(word in texts for word in ("speaking of", "i was wondering", "isolate", "my target"))


def test_a_concept_is_never_put_into_a_request() -> None:
    words = load_vocabulary("shapes")
    rng = np.random.default_rng(2)
    for _ in range(60):
        written = write_instruction(invented(words, rng), words, rng, "concept", wordings={"polite": 1.0})
        assert written is None or written.family == "plain"


def test_an_unknown_family_is_refused() -> None:
    words = load_vocabulary("shapes")
    rng = np.random.default_rng(2)
    with pytest.raises(ValueError, match="unknown wordings shouted; choose from plain, command"):
        write_instruction(invented(words, rng), words, rng, "simple", wordings={"shouted": 1.0})


def _changed(one: str, other: str) -> int:
    """Letters between what the texts begin and end with alike; 2 only where those are exchanged."""
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return 2 if one == other[::-1] and len(one) == 2 else max(len(one), len(other)) * (1 + (len(one) > 1))


def test_a_typing_error_is_one_letter_and_spares_the_first() -> None:
    random = Random(3)
    for phrase in (LARGEST, LEFT, NEAREST) * 60:
        text = plain(phrase, random)
        wrong = one_letter(text, random)
        assert wrong is not None
        assert wrong != text
        assert _changed(text, wrong) in (1, 2)
        assert all(a[0] == b[0] for a, b in zip(text.split(), wrong.split(), strict=True))
    assert one_letter("the red cup", random) is None


def test_words_that_say_nothing_stand_around_what_is_asked() -> None:
    texts = said("filler", RED_STAR)
    assert len(texts) > 190
    for text in texts:
        assert {"red", "star"} <= {word.strip(",:").removesuffix("s") for word in text.split()}, text
        assert len(text.split()) <= 5 + 5 + 5, text  # the stars, the red one
    starts = {text.split()[0].strip(",:") for text in texts}
    ends = {text.split()[-1].strip(",:") for text in texts}
    assert min(len(starts), len(ends)) > 60  # in front of it, and behind
    assert any("which star is red" in text for text in texts)
    assert any("the stars: the red one" in text for text in texts)
    phrases = [words_that_say_nothing(Random(seed), 4).split() for seed in range(100)]
    assert {len(words) for words in phrases} == {1, 2, 3, 4}
    verbs = [word for words in phrases for word in words if word.endswith(("ate", "ify", "ize", "ing"))]
    assert len(verbs) > 10  # "locate", "identify" and others are kept from training, their ends are not
    said_all = {word for seed in range(800) for word in words_that_say_nothing(Random(seed), 4).split()}
    assert {"over", "after", "up", "a", "the"} <= said_all  # else one of them would tell of "knocked over"


def test_files_tokenizers_and_the_router_have_none_of_those() -> None:
    assert set(TRAINED) - set(TYPED) == {"filler"}
    assert set(TYPED) - set(SPELLED) == {"typing error"}


@pytest.mark.parametrize("vocabulary", ["shapes", "tabletop", "coco"])
def test_a_corpus_is_repeatable_and_knows_every_noun(vocabulary: str) -> None:
    words = load_vocabulary(vocabulary)
    texts = list(corpus(3, 2000, [words]))
    assert len(texts) == 2000
    assert texts[:60] == list(corpus(3, 60, [words]))
    assert texts[:60] != list(corpus(4, 60, [words]))
    text = " ".join(texts).lower()
    assert all(words.nouns(category)[0].one in text for category in words.categories)
