"""Questions of docs/results/curricula.md: what their noun names, and what an answer and a look are worth."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sam3i_edge.data import query as q
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.attention import Attention
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model, save_weights
from sam3i_edge.train.run_config import DataSource

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("tiny", ROOT / "tests/train/tiny.py")
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


@pytest.fixture(scope="module")
def script():
    """The modules, which import their neighbours by name."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import curricula
        import noun_questions
        import where_queries_look

        yield SimpleNamespace(arms=curricula, nouns=noun_questions, looks=where_queries_look)
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture(scope="module")
def asked(script):
    return script.nouns.questions(DataSource(vocabulary="shapes"), tiny.words, 64, 48, 3)


def told(one, best):
    """A prediction for a batch: query n has the mask of object n, and `best(pair)` are those it is sure of.

    Queries on objects of other pictures have empty masks.
    """
    objects, pairs = one.batch.object_masks, len(one.batch.level)
    here = one.batch.object_image == one.batch.image_index[:, None]
    logits = torch.full((1, pairs, len(objects)), -9.0)
    for pair in range(pairs):
        logits[0, pair, list(best(pair))] = 9.0
    masks = ((objects > 127) & here[:, :, None, None]).float().mul(2).sub(1)
    return SimpleNamespace(logits=logits, presence=torch.full((1, pairs), 9.0), mask_logits=masks)


def targets(one, pair):
    return set(one.batch.target_object[one.batch.target_pair == pair].tolist())


STAR = q.Query(form="whole", head=q.Description(category="star"))


@pytest.mark.parametrize(
    ("narrowed", "kind", "others"),
    [
        ({"filters": (q.Inside("left"),)}, "place", 0),
        ({"filters": (q.Side("left", STAR),)}, "another", 1),
        ({"filters": (q.Between(STAR, STAR),)}, "another", 2),
        ({"pick": q.Nearest(STAR, False)}, "another", 1),
        ({"pick": q.Nearest(None, False)}, "its class", 0),
        ({"pick": q.Largest("big", False)}, "its class", 0),
    ],
)
def test_a_question_has_its_kind_and_the_things_that_it_compares_with(script, narrowed, kind, others):
    query = q.Query(form="x", head=STAR.head, **narrowed)
    assert script.nouns.kind_of(query) == kind
    assert len(script.nouns.references(query)) == others


def test_a_noun_names_every_target_and_often_more(asked):
    pairs = [(one, pair) for one in asked for pair in range(len(one.kinds))]
    assert len(pairs) == 3 * 48
    assert all(targets(one, pair) <= set(one.named[pair]) for one, pair in pairs if targets(one, pair))
    assert sum(0 < len(targets(one, pair)) < len(one.named[pair]) for one, pair in pairs) > 10


def test_the_noun_alone_answers_what_it_is_enough_for(script, asked):
    found = script.nouns.figures(asked, [None] * len(asked))
    for name in ("concept", "simple, noun enough", "complex, noun enough"):
        assert min(found[name]) > 0.95, name  # cells that two touching things share
    for name in ("simple, noun not enough", "complex, noun not enough"):
        assert max(found[name]) < 1, name
    assert min(found["right"]) == min(found["nothing"]) == 0


def test_an_answer_of_all_targets_is_right_everywhere_and_tells_them_apart(script, asked):
    answers = [told(one, lambda pair, one=one: targets(one, pair)) for one in asked]
    for name, values in script.nouns.figures(asked, answers, 0.5).items():
        assert min(values) > 0.95, name
    assert set(script.nouns.told_apart(asked, answers)["complex"]) == {1.0}
    others = [told(one, lambda pair, one=one: set(one.named[pair]) - targets(one, pair)) for one in asked]
    assert set(script.nouns.told_apart(asked, others)["complex"]) == {0.0}


class Looking(torch.nn.Module):
    """Stands for a model whose queries, one an object, look `more` times as much at what a question names."""

    def __init__(self, one, more):
        super().__init__()
        self.one, self.more, self.rows = one, more, [r for r, named in enumerate(one.references) if named]
        layer = torch.nn.ModuleDict({"self_attn": Attention(1, 1)})
        self.detector = torch.nn.ModuleDict(
            {"decoder": torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer])})}
        )
        for linear in (layer["self_attn"].q_proj, layer["self_attn"].k_proj):
            torch.nn.init.ones_(linear.weight)
            torch.nn.init.zeros_(linear.bias)

    def forward(self, pixels, ids, levels, images, masks):
        del pixels, ids, levels, images, masks
        keys = torch.zeros(len(self.rows), 1 + len(self.one.batch.object_masks), 1)
        for pair, row in enumerate(self.rows):
            keys[pair, [1 + named for named in self.one.references[row]]] = math.log(self.more)
        self.detector["decoder"]["layers"][0]["self_attn"](torch.ones_like(keys), keys, keys)
        answers = told(self.one, lambda pair: ())
        return SimpleNamespace(mask_logits=answers.mask_logits[self.rows])


@pytest.mark.parametrize("more", [1, 3])
def test_a_look_is_how_much_more_the_target_looks_at_what_is_named(script, asked, more):
    found = script.looks.looks(Looking(asked[0], more), asked[:1], adapted=False)
    ratios = torch.tensor(found["layer 1, base"])
    assert len(ratios) > 1
    torch.testing.assert_close(ratios.exp(), torch.full_like(ratios, more))


def test_the_attentions_between_queries_of_a_model_are_found(script):
    found = script.looks.attentions(SAM3I(replace(tiny.TINY, query_adapters=True)))
    kinds = ("base", *(f"adapter, {level}" for level in LEVELS[1:]))
    assert set(found) == {f"layer {layer}, {kind}" for layer in (1, 2) for kind in kinds}


@pytest.mark.parametrize("pattern", ["WORDLESS", "UNREAD"])
def test_a_base_starts_from_a_bundle_where_no_word_is_read_and_elsewhere_from_a_seed(
    script, tmp_path, pattern
):
    sizes = replace(tiny.TINY, image_size=script.arms.SIDE, adapter_dim=64, query_adapters=True)
    states = {}
    for seed, name in enumerate(("seeded", "bundle"), 1):
        torch.manual_seed(seed)
        model = SAM3I(sizes)
        save_weights(model, tmp_path / name / "weights")
        states[name] = model.state_dict()
    kept = getattr(script.arms, pattern)
    script.arms.make_start(tmp_path / "bundle", tmp_path / "start", kept, script.arms.SIDE)
    made = load_model(tmp_path / "start/weights").state_dict()
    for name, value in made.items():
        source = "bundle" if re.match(kept, name) else "seeded"
        assert torch.equal(value, states[source][name]), name
    random = {name for name in made if not re.match(kept, name)}
    assert {
        "text_encoder.token_embedding.weight",
        "detector.decoder.layers.0.prompt_attn.q_proj.weight",
    } <= random
    assert not any(name.startswith("image_encoder.") for name in random)
