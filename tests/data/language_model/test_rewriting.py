import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3i_edge.data.language_model.rewriting import FAMILY, NOT_COMPLETE, PROPOSED, Rewriter


@pytest.fixture
def ask(chat, open_model, vocabulary):
    """`ask(brain, scene, instructions, **settings)`: what came of them, and the server that was asked."""

    def ask(brain, scene, instructions, vision=False, **settings):
        with chat.ChatServer(brain) as server:
            model = open_model(server, vision=vision)
            return Rewriter(model, vocabulary, **settings).rewrite(scene, instructions), server

    return ask


def test_verified_texts_are_given_with_what_they_are_for(ask, honest, scene, instructions):
    done, _ = ask(honest, scene, instructions)
    reworded = {(o.text, o.level, o.targets, o.form) for o in done.instructions if o.form != PROPOSED}
    assert reworded == {
        (text, i.level, i.targets, i.form)
        for i in instructions
        if i.level != "concept"
        for text in (f"please find {i.text}", f"can you show me {i.text}?")
    }
    proposed = {(o.text, o.level, o.granularity, o.targets) for o in done.instructions if o.form == PROPOSED}
    assert proposed == {
        ("what is red and one drinks from", "complex", "one", (0,)),
        ("what is blue and one drinks from", "complex", "one", (1,)),
        ("what one drinks coffee from", "complex", "all", (0, 1)),
    }
    assert {one.family for one in done.instructions} == {FAMILY}
    assert (done.dropped, done.waiting, done.unproven) == ({}, 0, [])


def test_the_chooser_sees_neither_targets_nor_two_texts_for_the_same(ask, honest, scene, instructions):
    _, server = ask(honest, scene, instructions, proposals=0)
    votes = [asked for asked in server.asked if asked.kind == "choose"]
    assert len(votes) >= 2 * 2  # two right votes decide, for each batch
    for asked in votes:
        meant = [honest.meant(text) for text in asked.texts.values()]
        assert len(set(meant)) == len(meant)
        assert len(asked.objects) == 4
    assert len({tuple(asked.objects.values()) for asked in votes}) > 1  # numbered anew for each vote
    assert "response_format" in votes[0].body


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("please find every red mug", "another negation"),
        ("every mug that isn't blue", "another color"),
        ("every plate that is not red", "another noun"),
        ("both mugs that are not red", "another number"),
        ("every mug on the left that is not red", "another place"),
        ("the largest mug that is not red", "another comparison"),
        ("object 2", "no plain sentence"),
        ("", "no plain sentence"),
        ("every mug that is not red " * 5, "no plain sentence"),
        ("Every mug that is not red.", "the same as another"),
    ],
)
def test_a_rewriting_that_loses_a_condition_is_dropped_whatever_the_votes(
    ask, honest, scene, instructions, lie, reason
):
    honest.texts = lambda kind, text: [lie]
    honest.meant = lambda text: (1,)  # the model stands by its lie
    done, _ = ask(honest, scene, instructions[1:2], proposals=0)
    assert (done.instructions, done.dropped) == ([], {reason: 1})


@pytest.mark.parametrize("text", ["the mug of that color", "two coffee mugs", "a red cup"])
def test_a_complex_text_that_names_its_target_is_dropped(ask, honest, scene, instructions, text):
    honest.texts = lambda kind, _: [text]
    honest.meant = lambda _: (0,)
    done, server = ask(honest, scene, instructions[:1], rewrites=0)
    assert (done.instructions, done.dropped) == ([], {"names its target": 1})
    assert server.kinds() == ["propose"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda right, vote: [*right, *({1, 2, 3, 4} - set(right))][:2],
        lambda right, vote: [],
        lambda right, vote: [99],
        lambda right, vote: right if vote == 0 else [],
    ],
)
def test_what_the_majority_does_not_find_is_dropped(ask, honest, scene, instructions, wrong):
    def brain(asked):
        answer = json.loads(honest(asked))
        for choice in answer.get("choices", ()):
            choice["objects"] = wrong(choice["objects"], asked.body["seed"] // 3)
        return json.dumps(answer)

    done, _ = ask(brain, scene, instructions, proposals=0, rewrites=1)
    assert (done.instructions, done.dropped) == ([], {"other targets": 3})


def test_one_wrong_vote_of_three_does_not_decide(ask, honest, scene, instructions):
    def brain(asked):
        if asked.kind == "choose" and asked.body["seed"] // 3 == 0:
            return json.dumps({"choices": [{"number": n, "objects": []} for n in asked.texts]})
        return honest(asked)

    done, server = ask(brain, scene, instructions, proposals=0, rewrites=1)
    assert len(done.instructions) == 3
    assert server.kinds().count("choose") % 3 == 0


def test_a_choice_of_what_is_not_listed_is_no_vote(ask, honest, scene, instructions):
    def brain(asked):
        return honest(asked).replace('"objects"', '"unlisted": true, "objects"')

    done, _ = ask(brain, scene, instructions, proposals=0)
    assert done.instructions == []
    assert set(done.dropped) == {"other targets"}


def test_choices_that_contradict_each_other_or_are_missing_are_no_votes(ask, honest, scene, instructions):
    def brain(asked):
        answer = json.loads(honest(asked))
        if asked.kind == "choose":
            answer["choices"] = [*answer["choices"][:1], {**answer["choices"][0], "objects": []}]
        return json.dumps(answer)

    done, _ = ask(brain, scene, instructions, proposals=0, rewrites=1)
    assert done.instructions == []


def test_votes_that_cannot_be_read_prove_nothing(ask, honest, scene, instructions):
    done, _ = ask(lambda a: "I cannot" if a.kind == "choose" else honest(a), scene, instructions[:1])
    assert (done.instructions, done.dropped) == ([], {"votes that cannot be read": 3})


def test_proposals_for_a_scene_that_is_not_complete_go_to_review(ask, honest, scene, instructions):
    done, server = ask(honest, replace(scene, complete=False), instructions)
    assert {one.why for one in done.unproven} == {NOT_COMPLETE}
    assert len(done.unproven) == 3
    assert {one.form for one in done.instructions} == {"plain"}
    assert "There may be more" in json.dumps(server.asked[-1].body)


def test_a_model_that_sees_gets_the_numbered_picture_and_cuts(ask, honest, scene, instructions):
    _, server = ask(honest, scene, instructions, vision=True)
    for asked in server.asked:
        wanted = {"rewrite": 0, "propose": 1 + 3, "choose": 1}[asked.kind]
        assert len(asked.pictures) == wanted
    proposal = next(asked for asked in server.asked if asked.kind == "propose")
    data = [base64.b64decode(picture.partition(",")[2]) for picture in proposal.pictures]
    numbered, cut = (Image.open(io.BytesIO(one)) for one in data[:2])
    assert numbered.size == (210, 120)
    assert np.asarray(numbered).std() > 20  # the picture itself is one grey: these are the numbers
    assert cut.size == (60, 46)
    assert np.asarray(cut).std() < 1


def test_a_picture_that_is_gone_is_counted(ask, honest, scene, instructions):
    done, _ = ask(honest, replace(scene, image=Path("gone.png")), instructions, vision=True)
    assert done.dropped["a picture that cannot be read"] == 1


def test_wrong_settings_are_told(chat, honest, open_model, vocabulary):
    with chat.ChatServer(honest) as server:
        model = open_model(server)
    with pytest.raises(ValueError, match="odd number"):
        Rewriter(model, vocabulary, votes=2)
    with pytest.raises(ValueError, match="0 to 20"):
        Rewriter(model, vocabulary, rewrites=-1)
