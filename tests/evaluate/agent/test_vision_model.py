"""Over HTTP, with a scripted model."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.evaluate.agent.comparison import compare
from sam3i_edge.evaluate.agent.loop import Agent
from sam3i_edge.evaluate.agent.vision_model import VisionModel


def _in_turn(*replies):
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def _parts(asked):
    """Words and picture of a request."""
    words, picture = asked.body["messages"][0]["content"]
    kind, _, data = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    return words["text"], cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def _ask(segmenter, model, **options):
    agent = Agent(segmenter, VisionModel(model), **options)
    answer = agent.encode(Path("a.png")).segment("the $5 mug", level="simple", threshold=None)
    return answer, agent.costs[0]


RIGHT = (
    '{"phrases": ["tray"]}',
    'Well, {"phrases": ["mug", "plate"]} I think.',
    '{"masks": [2, 2, 3], "again": false}',
)


def test_the_model_sees_the_picture_then_the_numbered_masks(chat, open_model, segmenter):
    with chat.ChatServer(_in_turn(*RIGHT)) as server:
        model = open_model(server)
        answer, cost = _ask(segmenter, model)
        assert [int(np.flatnonzero(mask.any(axis=0))[0]) for mask in answer.masks] == [35, 65]
        assert (cost.calls, cost.tokens, cost.passes, cost.rounds) == (3, 360, 3, 2)
        (first, plain), (second, again), (third, marked) = map(_parts, server.asked)
        assert all("the $5 mug" in words for words in (first, second, third))
        assert "Tried" not in first
        assert "'tray' gave 0 masks." in second
        assert "1. mug\n2. mug\n3. plate\n" in third
        assert plain.shape == marked.shape == (60, 90, 3)
        assert np.array_equal(plain, again)
        assert np.ptp(plain) < 20 < np.ptp(marked)  # outlines and numbers
        # Another run asks nobody, and reports what it cost when it was asked.
        _, later = _ask(segmenter, open_model(server))
        assert len(server.asked) == 3
    assert (later.calls, later.tokens, later.passes) == (3, 360, 3)
    assert later.ms == pytest.approx(cost.ms, abs=100)


@pytest.mark.parametrize(
    ("replies", "failure", "calls", "found"),
    [
        (['{"phrases": ["mug"]}', '{"masks": [3]}'], "a mask was chosen that is not there", 2, 0),
        (['{"phrases": [" "]}'], "no answer that can be read", 3, 0),
        (['{"phrases": ["mug"]}', "no idea"], "no answer that can be read", 4, 0),
        (
            ['{"phrases": ["mug"]}', '{"masks": [1], "again": true}', "<html>"],
            "no answer that can be read",
            5,
            1,
        ),
    ],
)
def test_answers_that_make_no_sense_are_counted(chat, open_model, segmenter, replies, failure, calls, found):
    with chat.ChatServer(_in_turn(*replies)) as server:
        answer, cost = _ask(segmenter, open_model(server))
    assert (cost.failure, cost.calls, len(answer.masks)) == (failure, calls, found)


def test_an_endpoint_that_is_slow_once_fails_one_question(chat, open_model, segmenter):
    replies = [chat.Reply("", wait=1.0), '{"phrases": []}']
    with chat.ChatServer(_in_turn(*replies)) as server:
        model = open_model(server, timeout=0.2, retries=0)
        agent = Agent(segmenter, VisionModel(model))
        picture = agent.encode(Path("a.png"))
        for words in ("the mug", "the plate"):
            picture.segment(words, level="simple", threshold=None)
    assert [cost.failure for cost in agent.costs] == ["no answer of the endpoint", ""]


@pytest.mark.parametrize(
    ("status", "settings", "told"),
    [(401, {}, "401"), (200, {"budget": 100}, "budget of 100 tokens")],
)
def test_an_endpoint_that_refuses_ends_the_run(
    chat, open_model, segmenter, records, images, status, settings, told
):
    with chat.ChatServer(_in_turn(chat.Reply("{}", status=status))) as server:
        agent = Agent(segmenter, VisionModel(open_model(server, **settings)))
        with pytest.raises(RuntimeUnavailable, match=told) as raised:
            compare(agent, records, images)
    assert "the same command goes on" in str(raised.value)
    assert len(server.asked) == (status == 401)


def test_a_whole_run_over_http(chat, open_model, segmenter, records, images):
    def brain(asked):
        words, _ = _parts(asked)
        if "Found:" not in words:
            return json.dumps({"phrases": ["mug", "plate"] if "right" in words else ["mug"]})
        return json.dumps({"masks": [2, 3] if "right" in words else [1, 2] if "all mugs" in words else [1]})

    with chat.ChatServer(brain) as server:
        found = compare(Agent(segmenter, VisionModel(open_model(server))), records, images)
    told = found.to_dict()
    assert told["costs"]["questions"] == 7
    assert told["costs"]["calls"] == len(server.asked) == 14
    assert told["costs"]["tokens"] == 14 * 120
    assert told["costs"]["failures"] == {}
    right = {one.instruction for one in found.agent.outcomes if one.overlap.iou() == 1.0}
    assert right == {"the mug on the left", "what holds red tea", "everything on the right", "all mugs"}
    assert {text for text, level in segmenter.asked if level != "concept"} == {
        *("the mug on the left", "all mugs", "the green mug"),
        *("what holds red tea", "everything on the right", "what one drinks from", "what one cuts with"),
    }
    ways, costs = (table.plain() for table in found.tables())
    assert [line.split()[:3] for line in ways.splitlines()[2:8]] == [
        [level, way, pairs]
        for level, pairs in (("simple", "3"), ("complex", "4"), ("overall", "7"))
        for way in ("direct", "agent")
    ]
    assert costs.splitlines()[2].split() == ["calls", "14", "2.00", "2.00"]
    assert [line["cost"]["calls"] for line in found.lines()] == [2] * 7
