"""Parts of a phrase, and what the plain wording makes of them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from sam3i_edge.data.phrase import Adjective, Phrase, Tail, plain
from sam3i_edge.data.query import Description, Is, Modifier, Nearest, Query
from sam3i_edge.data.truth import Answer
from sam3i_edge.data.vocabulary import Noun, load_vocabulary
from sam3i_edge.data.wording import phrase_of

STAR = Phrase(
    form="relation",
    count=1,
    universal=False,
    noun=Noun("star", "stars"),
    adjectives=(Adjective("color", "red"),),
    tails=(Tail("relation", "left of the ring"),),
)
SCISSORS = replace(STAR, noun=Noun("scissors", "scissors"))


def said(phrase: Phrase, tries: int = 400) -> set[str]:
    return {plain(phrase, Random(seed)) for seed in range(tries)}


@pytest.mark.parametrize(
    ("phrase", "texts"),
    [
        (
            STAR,
            {
                "the red star left of the ring", "the red star that is left of the ring",
                "red star left of the ring", "red star that is left of the ring",
            },
        ),
        (replace(STAR, tails=(), superlative="largest"), {"the largest red star"}),
        (
            replace(STAR, count=2, tails=(), superlative="leftmost", picked=2),
            {"the two leftmost red stars"},
        ),
        (
            replace(STAR, tails=(Tail("order", "from the top", "never"),), superlative="second"),
            {"the second red star from the top"},
        ),
        (replace(STAR, tails=(), universal=True, form="whole"), {"every red star", "each red star"}),
        (replace(STAR, form="concept", tails=()), {"red star", "red stars"}),
        (replace(STAR, idiom="the odd one out"), {"the odd one out"}),
        # What is always plural takes no "every" and no "is".
        (
            SCISSORS,
            {
                "the red scissors left of the ring", "the red scissors that are left of the ring",
                "red scissors left of the ring", "red scissors that are left of the ring",
            },
        ),
    ],
)  # fmt: skip
def test_the_plain_wording_of_one(phrase: Phrase, texts: set[str]) -> None:
    assert said(phrase) == texts


def test_the_plain_wording_of_several() -> None:
    texts = said(replace(STAR, count=2))
    assert {"every red star left of the ring", "both red stars left of the ring"} <= texts
    assert {"all red stars that are left of the ring", "each red star that is left of the ring"} <= texts
    texts = said(replace(SCISSORS, count=2))
    assert {"all red scissors left of the ring", "the two red scissors that are left of the ring"} <= texts
    assert not [text for text in texts if text.startswith(("every", "each")) or " is " in text]
    thing = replace(STAR, noun=Noun("thing", "things"), adjectives=(), generic=True, count=3)
    assert {"everything left of the ring", "whatever is left of the ring"} <= said(thing)


def test_one_is_asked_for_though_none_is_there() -> None:
    fork = Query(form="reference", head=Description("fork"))
    nearest = Query(form="distance", head=Description("cup"), pick=Nearest(fork, False))
    words = load_vocabulary("tabletop")
    made = {plain(phrase_of(nearest, Answer((), ()), words, Random(n)), Random(n + 9000)) for n in range(200)}
    assert "the cup nearest to the fork" in made
    assert not [text for text in made if "cups" in text or "every" in text or "each" in text]


def test_exceptions_and_negations() -> None:
    phrase = replace(STAR, tails=(), count=3, without="the striped ones", form="exception")
    assert {"all red stars except the striped ones", "every red star but the striped ones"} <= said(phrase)
    thing = replace(phrase, noun=Noun("thing", "things"), adjectives=(), generic=True)
    phrase = replace(thing, form="negation", without="", tails=(Tail("negation", "not red", "must"),))
    assert {"everything that is not red", "the things that are not red"} <= said(phrase)
    assert {"the only thing that is not red", "what is not red"} <= said(replace(phrase, count=1))
    lacking = replace(phrase, tails=(Tail("negation", "without dots", "never"),))
    assert said(lacking) == {"everything without dots", "all things without dots"}


def test_a_function_is_something_to_do() -> None:
    words = load_vocabulary("tabletop")
    test = Is("category", frozenset({"knife", "scissors"}))
    head = Description(modifiers=(Modifier(test, "to cut with", function=True),))
    query = Query(form="function", head=head)
    one = {
        plain(phrase_of(query, Answer((0,), (0,)), words, Random(n)), Random(n + 9000)) for n in range(300)
    }
    assert {"something to cut with", "the thing to cut with", "the one to cut with"} <= one
    assert not [text for text in one if text.startswith(("every", "all"))]
    assert not [text for text in one if text.startswith("every one")]
    two = {
        plain(phrase_of(query, Answer((0, 1), (0, 1)), words, Random(n)), Random(n + 9000))
        for n in range(300)
    }
    assert {"everything to cut with", "all things to cut with", "both objects to cut with"} <= two


def test_an_adjective_knows_its_attribute() -> None:
    words = load_vocabulary("shapes")
    tests = {"color": "red", "size": "small", "fill": "striped"}
    modifiers = tuple(Modifier(Is(name, frozenset({value}))) for name, value in tests.items())
    query = Query(form="whole", head=Description("star", modifiers=modifiers))
    made = [phrase_of(query, Answer((0,), (0,)), words, Random(n)) for n in range(200)]
    told = {tuple(adjective.attribute for adjective in phrase.adjectives) for phrase in made}
    assert told == {("size", "color", "fill"), ("size", "fill", "color"), ("size", "color")}
    assert all(phrase.complement for phrase in made if len(phrase.adjectives) == 2)
    assert {phrase.adjectives[0].text for phrase in made} == {"small", "little", "tiny"}
