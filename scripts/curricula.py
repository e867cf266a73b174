"""Trains the curricula that docs/results/curricula.md compares, on drawn scenes, and prints its tables.

    python scripts/curricula.py runs/curricula             # trains; the same command goes on (hours)
    python scripts/curricula.py runs/curricula --table     # of the runs that are finished
    python scripts/curricula.py runs/curricula --sites a3  # what each kind of adapters does

Every run is one stage and starts from the averaged weights that another one ended with, so those of each
stage stay. The first ones start from the bundled model's weights where they read no word and compare no
objects, and from random ones elsewhere.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sam3i_edge.data.batch import Batch, BatchShape, Sample, assemble, from_scene
from sam3i_edge.data.dataset import ask, drawn_classes
from sam3i_edge.data.geometry import view_of
from sam3i_edge.data.query import Inside, Is, Nearest, Query
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.truth import answer
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.config import SAM3I_NANO
from sam3i_edge.model.detector import Prediction
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import group_of, load_model, save_weights
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.train.losses import LossWeights
from sam3i_edge.train.run import TrainingReport
from sam3i_edge.train.run_config import StageConfig, TrainConfig
from sam3i_edge.train.trainer import run_training
from where_it_is_lost import answers, overlap

BUNDLE = Path(__file__).resolve().parent.parent / "sam3i_edge/assets/sam3i-nano"
# Adapters as wide as those of sam3i-nano-256, and between queries too; every arm has them.
SIZES = replace(SAM3I_NANO, image_size=128, adapter_dim=64, query_adapters=True)
# What sees the picture and one query at a time: no word, and no object beside another.
WORDLESS = (
    r"image_encoder\.|detector\.mask_decoder\.(pixel_decoder|instance_proj|semantic_proj|mask_embedders\.concept)\."
    r"|detector\.decoder\.(query_embed|reference_points|box_|ref_point_head|output_norm|layers\.\d\.image_)"
)
EVEN: Mapping[Level, float] = {"concept": 0.25, "simple": 0.375, "complex": 0.375}  # the bundled model's
BASE = StageConfig(
    name="base",
    steps=1_400,
    lr=1e-3,
    warmup=100,
    route="unadapted",
    trainable=("base",),
    level_weights=EVEN,
    none_share=0.25,
)
ADAPTERS = replace(BASE, route="adapted", lr=1.5e-3, warmup=40)
FIRST = replace(ADAPTERS, name="1", steps=240, trainable=("simple",), level_weights={"simple": 1.0})
SECOND = replace(
    ADAPTERS, name="2", steps=160, trainable=("bridge", "complex"), level_weights={"complex": 1.0}
)
THIRD = replace(
    ADAPTERS,
    name="3",
    steps=60,
    lr=5e-4,
    trainable=("simple", "bridge", "complex"),
    level_weights={"simple": 0.5, "complex": 0.5},
)

SCORES = (0.3, 0.5)  # least ones
# The last projections of the adapters of a site; zeros silence it.
SITES = {
    "-": r"^$",
    "text encoder": r"^text_encoder\..*(o_proj|up_proj)\.",
    "fusion encoder": r"fusion_encoder\..*up_proj\.",
    "decoder": r"decoder\..*\.adapter\..*up_proj\.",
    "between queries": r"query_adapter\..*o_proj\.",
    "mask embedder": r"^$",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One run: where it starts, its only stage, and the seed of its scenes, which an arm sees once."""

    start: str
    stage: StageConfig
    seed: int


LONGER = replace(BASE, name="detail", steps=460, warmup=40)
PARTS = {
    "concepts": Part("start", replace(BASE, level_weights={"concept": 1.0}), 1),
    "a1": Part("concepts", FIRST, 2),
    "a2": Part("a1", SECOND, 3),
    "a3": Part("a2", THIRD, 4),
    "d": Part("concepts", LONGER, 2),
    "a1 longer": Part("a1", replace(FIRST, steps=360, renew=False), 5),
    "phrases": Part("start", BASE, 1),
    "b": Part("phrases", LONGER, 2),
    "c1": Part("phrases", FIRST, 2),
    "c2": Part("c1", SECOND, 3),
    "c3": Part("c2", THIRD, 4),
}
# Arm, what has been trained of it, and its parts.
ROWS = (
    ("a", "base, concept phrases", "concepts"),
    ("a", "stage 1", "a1"),
    ("a", "stage 1, 360 steps more", "a1 longer"),
    ("a", "stage 2", "a2"),
    ("a", "stage 3", "a3"),
    ("b, c", "base, all phrases", "phrases"),
    ("b", "base, all phrases, to the end", "b"),
    ("d", "base (a), then all phrases", "d"),
    ("c", "stage 1", "c1"),
    ("c", "stage 2", "c2"),
    ("c", "stage 3", "c3"),
)


def make_start(folder: Path) -> None:
    """Writes the weights that both bases start from."""
    torch.manual_seed(1)
    model, known = SAM3I(SIZES), load_model(BUNDLE / "weights").state_dict()
    taken = {name: value for name, value in known.items() if re.match(WORDLESS, name)}
    model.load_state_dict(model.state_dict() | taken)
    save_weights(model, folder)


def config_of(part: Part, root: Path) -> TrainConfig:
    """The run of a part."""
    start = root / part.start / "weights"
    return TrainConfig(
        model="",
        seed=part.seed,
        start=str(start),
        images=4,
        instructions=7,
        mask_instructions=1,
        losses=LossWeights(grounding=10.0, attributes=0.0),
        validate_every=200,
        validation_batches=12,
        checkpoint_every=50,
        threads=1,
        stages=(part.stage,),
    )


def train(root: Path) -> None:
    """Trains what is not finished, in order."""
    if not (root / "start/weights").is_dir():
        make_start(root / "start/weights")
    tokens = Tokenizer.from_file(BUNDLE / "tokenizer.json", start_id=1, end_id=2)

    def tell(report: TrainingReport) -> None:
        last[:] = [report.kind]
        values = " ".join(f"{name} {value:.4g}" for name, value in report.values.items())
        print(f"{name} {report.stage} {report.step:,}/{report.steps:,} {report.kind} {values}", flush=True)

    for name, part in PARTS.items():
        last: list[str] = []
        if (root / name / "weights").is_dir():
            continue
        run_training(
            config_of(part, root),
            root / name,
            lambda text: tokens.encode(text).ids,
            device="cpu",
            progress=tell,
        )
        if last != ["finished"]:
            sys.exit(f"{name}: paused, the same command goes on")


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch of drawn scenes, and for every instruction its kind and the objects that its noun names."""

    batch: Batch
    kinds: tuple[str, ...]
    named: tuple[tuple[int, ...], ...]


def kind_of(query: Query) -> str:
    """What narrows the noun: where the thing is in the picture, another thing, or the rest of its class."""
    if query.pick is None and query.without is None:
        return "place" if all(isinstance(test, Is | Inside) for test in query.filters) else "another"
    near = isinstance(query.pick, Nearest) and query.pick.reference is not None
    return "another" if near or query.without is not None else "its class"


def questions(count: int) -> list[Asked]:
    """Batches that no part of the training sees."""
    tokens = Tokenizer.from_file(BUNDLE / "tokenizer.json", start_id=1, end_id=2)
    vocabulary, levels = load_vocabulary("shapes"), dict.fromkeys(LEVELS, 1.0)
    shape = BatchShape(images=8, mask_instructions=6, image_size=SIZES.image_size, mask_size=SIZES.mask_size)
    made = []
    for number in range(count):
        rng = np.random.default_rng((20261129, number))
        samples: list[Sample] = []
        kinds, named = [], []
        while len(samples) < shape.images:
            scene = draw_scene(rng)
            asked = ask(scene, vocabulary, rng, shape, levels, BASE.none_share)
            if asked is None:
                continue
            first, view = sum(len(sample.masks) for sample in samples), view_of(scene)
            for instruction in asked[0]:
                assert instruction.query is not None
                meant = answer(instruction.query, view)
                kinds.append(kind_of(instruction.query))
                named.append(tuple(first + member for member in meant.members) if meant else ())
            samples.append(from_scene(scene, drawn_classes(), *asked))
        batch = assemble(samples, shape, lambda text: tokens.encode(text).ids, rng, augment=False)
        made.append(Asked(batch, tuple(kinds), tuple(named)))
    return made


def figures(
    asked: list[Asked], told: Sequence[Prediction | None], score: float = 0.0
) -> dict[str, list[float]]:
    """IoU of every question by level and by what its noun leaves open; what is told rightly.

    None stands for an answer of all objects that the noun names, each whole.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for one, out in zip(asked, told, strict=True):
        batch = one.batch
        wanted = batch.union_masks(torch.arange(len(batch.level))) > 0.5
        for pair, (kind, named) in enumerate(zip(one.kinds, one.named, strict=True)):
            if out is None:
                kept = batch.object_masks[list(named)] > 127
            else:
                scores = out.logits[-1, pair].sigmoid() * out.presence[-1, pair].sigmoid()
                kept = out.mask_logits[pair][scores > score] > 0
            there = bool((batch.target_pair == pair).any())
            found["right"].append(float(there == bool(len(kept))))
            if not there:
                found["nothing"].append(float(not len(kept)))
                continue
            level = LEVELS[int(batch.level[pair])]
            iou = float(overlap(kept.any(0), wanted[pair])) if len(kept) else 0.0
            found[level].append(iou)
            enough = set(batch.target_object[batch.target_pair == pair].tolist()) == set(named)
            found[f"{level}, noun {'enough' if enough else 'not enough'}"].append(iou)
            if not enough:
                found[f"not enough: {kind}"].append(iou)
    return found


def tables(root: Path, batches: int) -> None:
    """Prints the accuracy of every finished part, and the parameters of an arm."""
    asked = questions(batches)
    kinds = [f"{level}, noun {enough}" for level in LEVELS[1:] for enough in ("enough", "not enough")]
    kinds += [f"not enough: {kind}" for kind in ("place", "another", "its class")]
    perfect = figures(asked, [None] * len(asked))
    done = [row for row in ROWS if (root / row[2] / "weights").is_dir()]
    told = [
        answers(
            load_model(root / part / "weights"),
            [one.batch for one in asked],
            PARTS[part].stage.route == "adapted",
        )
        for *_, part in done
    ]
    for score in SCORES:
        found = [figures(asked, answered, score) for answered in told]
        for names in ([*LEVELS, "right", "nothing"], kinds):
            print(f"\n| arm | trained, score {score} | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
            rows = [
                (f"| {arm} | {trained}", each) for (arm, trained, _), each in zip(done, found, strict=True)
            ]
            for start, each in [("| - | all that the noun names", perfect), *rows]:
                print(start, *(f"{np.mean(each[key]):.3f}" for key in names), sep=" | ", end=" |\n")
            print("| | questions", *(len(perfect[key]) for key in names), sep=" | ", end=" |\n")
    groups: dict[str, int] = defaultdict(int)
    for name, value in SAM3I(SIZES).named_parameters():
        groups[group_of(name)] += value.numel()
    print(f"\nparameters: {', '.join(f'{group} {count:,}' for group, count in groups.items())}")
    print("not run:", ", ".join(row[2] for row in ROWS if row not in done) or "-")


@torch.no_grad()
def without(model: SAM3I, site: str) -> SAM3I:
    """The model with the adapters of one kind of site silent."""
    for name, value in model.named_parameters():
        if adapter_of(name) and re.search(rf"{SITES[site]}(bias|weight)$", name):
            value.zero_()
    if site == "mask embedder":
        model.copy_mask_embedder()
    return model


def sites(root: Path, part: str, batches: int) -> None:
    """Prints the accuracy of a part with one kind of adapters silent after the other."""
    asked = questions(batches)
    names = ["simple", "complex", "simple, noun not enough", "complex, noun not enough", "right", "nothing"]
    print(f"| silent | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for site in SITES:
        model = without(load_model(root / part / "weights"), site)
        found = figures(asked, answers(model, [one.batch for one in asked], True), SCORES[0])
        print(f"| {site} |", " | ".join(f"{np.mean(found[key]):.3f}" for key in names), "|")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--batches", type=int, default=25, help="of 48 questions each")
    parser.add_argument("--sites", choices=[name for name in PARTS if name[-1] in "123"])
    given = parser.parse_args()
    if given.sites:
        sites(given.root, given.sites, given.batches)
    elif given.table:
        tables(given.root, given.batches)
    else:
        train(given.root)


if __name__ == "__main__":
    main()
