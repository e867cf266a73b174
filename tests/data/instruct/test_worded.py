from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam3i_edge.data.annotations import read_annotations
from sam3i_edge.data.instruct.picture import write_picture
from sam3i_edge.data.instruct.run import instruct
from sam3i_edge.data.instruct.shards import InstructConfig, opened, work
from sam3i_edge.data.instruct.worded import Wording
from sam3i_edge.data.language_model.model import LanguageModel, ModelSettings
from sam3i_edge.data.language_model.rewriting import FAMILY, Rewritten
from sam3i_edge.errors import DataError


@pytest.fixture
def config(tmp_path, write_scene_folder):
    opened.cache_clear()
    folder = write_scene_folder(tmp_path / "scenes", 3)
    return InstructConfig(source=str(folder), vocabulary="shapes", shard=2, per_image=4, review=0)


class Honest:
    """Rewords by an opening, proposes nothing, and chooses what is meant.

    Attributes:
        meant: the places of the targets, x and y in percent, by the instruction.
        down: whether it answers with an error.
    """

    def __init__(self, chat, config) -> None:
        self.chat, self.down, self.meant = chat, False, {}
        source, vocabulary = opened(config)
        for place in range(len(source)):
            scene = source.scene(place)
            rng = np.random.default_rng((config.seed, place))
            written = write_picture(scene, vocabulary, rng, levels=config.levels, most=4, review=0)
            for one in written.instructions:
                centers = [scene.objects[target].center for target in one.targets]
                self.meant[one.text, len(self.meant)] = [
                    (f"{100 * x / 128:.0f}", f"{100 * y / 96:.0f}") for x, y in centers
                ]

    def __call__(self, asked):
        if self.down:
            return self.chat.Reply(status=503)
        if asked.kind == "choose":
            places = {
                re.search(r"at x (\d+), y (\d+)", line).groups(): number
                for number, line in asked.objects.items()
            }
            choices = [{"number": n, "objects": self.chosen(text, places)} for n, text in asked.texts.items()]
            return json.dumps({"choices": choices})
        texts = {
            n: [f"please show me {text}"] if asked.kind == "rewrite" else []
            for n, text in asked.texts.items()
        }
        return json.dumps({"entries": [{"number": n, "texts": found} for n, found in texts.items()]})

    def chosen(self, text, places):
        """Numbers of the targets; the scene is the one that has them all."""
        for (instruction, _), targets in self.meant.items():
            if text == f"please show me {instruction}" and all(target in places for target in targets):
                return [places[target] for target in targets]
        return []


@pytest.fixture
def write(config, chat, tmp_path):
    """`write(out, brain)`: the report, and calls and tokens that were paid."""

    def run(out, brain, config=config):
        with chat.ChatServer(brain) as server:
            settings = ModelSettings(url=server.url, model="tiny", retries=0, timeout=20, concurrency=2)
            with LanguageModel(settings, tmp_path / "cache.sqlite") as model:
                wording = Wording(model=model, rewrites=1, proposals=0, votes=1)
                return instruct(config, out, wording=wording), model.paid(), len(server.asked)

    return run


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_verified_words_are_kept_beside_those_that_were_proven(config, chat, write, tmp_path):
    plain = instruct(config, tmp_path / "plain")
    report, _, _ = write(tmp_path / "out", Honest(chat, config))
    worded = report.family[FAMILY]
    assert worded > 3
    assert report.instructions == plain.instructions + worded
    assert report.waiting == 0
    records = read_annotations(tmp_path / "out" / "annotations.json")
    before = read_annotations(tmp_path / "plain" / "annotations.json")
    assert [r.annotations for r in records] == [r.annotations for r in before]
    for record in records:
        for text in record.simple + record.complex:
            original = text.removeprefix("please show me ")
            assert original in record.simple + record.complex
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_an_endpoint_that_is_down_costs_nothing_that_is_proven_and_the_same_call_goes_on(
    config, chat, write, tmp_path
):
    plain = instruct(config, tmp_path / "plain")
    brain = Honest(chat, config)
    brain.down = True
    report, paid, _ = write(tmp_path / "out", brain)
    assert (report.instructions, paid) == (plain.instructions, (0, 0))
    assert report.waiting > 3
    assert (
        contents(tmp_path / "out")[Path("annotations.json")]
        == contents(tmp_path / "plain")[Path("annotations.json")]
    )
    brain.down = False
    report, paid, _ = write(tmp_path / "out", brain)
    assert (report.waiting, report.family[FAMILY] > 3) == (0, True)
    _, again, asked = write(tmp_path / "anew", brain)
    assert (again, asked) == (paid, 0)  # from the cache alone
    assert contents(tmp_path / "anew") == contents(tmp_path / "out")


def test_a_folder_without_words_is_another_run(config, chat, write, tmp_path):
    write(tmp_path / "out", Honest(chat, config))
    with pytest.raises(DataError, match=r"another run \(wording \{.*against None"):
        instruct(config, tmp_path / "out")


def test_work_without_a_model_waits_for_nothing(config):
    assert work(config, 0).waiting == 0


def test_of_a_picture_that_waits_only_what_is_proven_is_kept(config):
    """Its other words come with the run that gets them all: half of them would change the folder twice."""

    def half(pictures):
        for picture in pictures:
            done = Rewritten(instructions=[replace(picture.written.instructions[0], text="new")], waiting=1)
            yield picture, done

    shard = work(config, 0, half)
    assert shard.waiting == 2
    assert shard.instructions == work(config, 0).instructions
    assert "new" not in shard.lines
