"""Trains the curricula that docs/results/curricula.md compares, and prints its tables.

    python scripts/curricula.py runs/drawn --start BUNDLE      # trains; the same command goes on (hours)
    python scripts/curricula.py runs/drawn --table             # of the runs that are finished
    python scripts/curricula.py runs/drawn --sites "a3 seed 4" # what each kind of adapters does
    python scripts/curricula.py runs/drawn --weights FOLDER    # of a model that reads the same tokens

With `--pictures TRAIN HELD-OUT`, two folders of scene files, each of them asks about tables instead of drawn
scenes, trains on drawn ones beside them, and keeps the image encoder frozen. Every run is one stage and goes
on from the averaged weights that another one ended with, so those of each stage stay. The first ones start
from the weights of a bundle where they read no word and compare no queries, and from random ones elsewhere.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from noun_questions import NONE_SHARE, Asked, figures, questions, told_apart
from sam3i_edge.data.batch import Encode
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import group_of, load_model, read_config, save_weights
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.train.alignment import SAM3I_ALIGNMENT, AlignmentWeights
from sam3i_edge.train.losses import LossWeights
from sam3i_edge.train.run import TrainingReport
from sam3i_edge.train.run_config import DataSource, StageConfig, TrainConfig
from sam3i_edge.train.trainer import run_training
from where_it_is_lost import answers

BUNDLE = Path(__file__).resolve().parent.parent / "sam3i_edge/assets/sam3i-nano"
SIDE = 128  # of drawn images, pixels; pictures have the bundle's own
DRAWN = 0.3  # of the pictures, where tables are learned
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
    none_share=NONE_SHARE,
)
# On tables the encoder of the image tokens starts from the bundle, too, but for its attention to words.
UNREAD = (
    r"(?!text_encoder\.|.*\.(prompt_attn|prompt_norm|query_adapter|adapter)\.|detector\.scoring\."
    r"|detector\.decoder\.(presence|layers\.\d\.self_)|detector\.fusion_encoder\.layers\.\d\.(cross_attn|norm2)\.)"
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

Figures = dict[str, list[float]]
Model = tuple[Path, bool]  # the folder of its weights, and whether it is asked through its adapters
SCORES = (0.3, 0.5)  # least ones
# The last projections of the adapters of a site; zeros silence it.
SITES = {
    "-": r"^$",
    "text encoder": r"^text_encoder\..*adapter\..*(o_proj|up_proj)\.",
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
    aligned: bool = False


PAIRED = replace(THIRD, pairs=1)
LONGER = replace(BASE, name="detail", steps=460, warmup=40)
LONGEST = replace(LONGER, steps=1_400)
SEEDS = (4, 5, 6)
PARTS = {
    "concepts": Part("start", replace(BASE, level_weights={"concept": 1.0}), 1),
    "a1": Part("concepts", FIRST, 2),
    "a2": Part("a1", SECOND, 3),
    "d": Part("concepts", LONGER, 2),
    "a1 longer": Part("a1", replace(FIRST, steps=360, renew=False), 5),
    "phrases": Part("start", BASE, 1),
    "b": Part("phrases", LONGER, 2),
    "c1": Part("phrases", FIRST, 2),
    "c2": Part("c1", SECOND, 3),
    "c3": Part("c2", THIRD, 4),
    **{f"a3 seed {seed}": Part("a2", THIRD, seed) for seed in SEEDS},
    **{f"a3 pairs seed {seed}": Part("a2", PAIRED, seed) for seed in SEEDS},
    **{f"a3 aligned seed {seed}": Part("a2", PAIRED, seed, True) for seed in SEEDS},
    "a long": Part("a3 seed 4", replace(THIRD, steps=1_400, lr=1e-3, warmup=40), 7),
    "b long": Part("b", LONGEST, 7),
    "d long": Part("d", LONGEST, 7),
}
# Arm, what has been trained of it, and the beginning of its parts' names.
ROWS = (
    ("a", "base, concept phrases", "concepts"),
    ("a", "stage 1", "a1"),
    ("a", "stage 1, 360 steps more", "a1 longer"),
    ("a", "stage 2", "a2"),
    ("a", "stage 3", "a3"),
    ("a", "stage 3 with pairs", "a3 pairs"),
    ("a", "stage 3 with pairs, aligned", "a3 aligned"),
    ("a", "stage 3, 1,400 steps more", "a long"),
    ("b, c", "base, all phrases", "phrases"),
    ("b", "as many steps more", "b"),
    ("b", "1,400 steps more", "b long"),
    ("d", "base (a), then all phrases", "d"),
    ("d", "1,400 steps more", "d long"),
    ("c", "stage 1", "c1"),
    ("c", "stage 2", "c2"),
    ("c", "stage 3", "c3"),
)


def make_start(bundle: Path, folder: Path, kept: str, side: int) -> None:
    """Writes the weights that bases start from: a bundle's where `kept` matches, else random ones.

    Adapters are as wide as those of sam3i-nano-256, and between queries too; every arm has them.
    """
    sizes = read_config(bundle / "weights")
    sizes = replace(
        sizes, image_size=side or sizes.image_size, adapter_dim=64, query_adapters=True, mask_detail=0
    )
    torch.manual_seed(1)
    model = SAM3I(sizes)
    own, known = model.state_dict(), load_model(bundle / "weights").state_dict()
    model.load_state_dict(own | {n: v for n, v in known.items() if n in own and re.match(kept, n)})
    save_weights(model, folder / "weights")


def encoder(root: Path) -> Encode:
    """What turns texts into the tokens of the arms."""
    tokens = Tokenizer.from_file(root / "start/tokenizer.json", start_id=1, end_id=2)
    return lambda text: tokens.encode(text).ids


def config_of(part: Part, start: Path, pictures: DataSource) -> TrainConfig:
    """The run of a part from a folder of weights."""
    tables, stage = bool(pictures.path), part.stage
    if tables:  # words are new to all arms, what sees the picture is not
        stage = replace(stage, lr=min(stage.lr, 1e-3), text_lr=3.0, freeze_image=True)
    return TrainConfig(
        model="",
        seed=part.seed,
        start=str(start),
        data=(pictures, DataSource(vocabulary="shapes", weight=DRAWN)) if tables else (pictures,),
        images=4,
        instructions=7,
        mask_instructions=max(1, 2 * stage.pairs),
        losses=LossWeights(grounding=10.0, attributes=0.0),
        alignment=SAM3I_ALIGNMENT if part.aligned else AlignmentWeights(),
        validate_every=600 if tables else 200,
        validation_batches=12,
        checkpoint_every=50,
        threads=1,
        muon=tables,
        stages=(stage,),
    )


def with_steps(part: Part, steps: Sequence[int]) -> Part:
    """The part with other numbers of steps: of a base, and of stages 1 to 3, which "detail" has together."""
    base, *stages = steps
    lengths = {"base": base, "detail": sum(stages), **dict(zip("123", stages, strict=True))}
    return replace(part, stage=replace(part.stage, steps=lengths[part.stage.name]))


def train(given: argparse.Namespace, pictures: DataSource) -> None:
    """Trains what is not finished, in order."""
    root = given.root
    if not (root / "start").is_dir():
        kept, side = (UNREAD, 0) if pictures.path else (WORDLESS, SIDE)
        make_start(given.start, root / "start", kept, side)
        shutil.copy(given.start / "tokenizer.json", root / "start")

    def tell(report: TrainingReport) -> None:
        last[:] = [report.kind]
        values = " ".join(f"{name} {value:.4g}" for name, value in report.values.items())
        print(f"{name} {report.stage} {report.step:,}/{report.steps:,} {report.kind} {values}", flush=True)

    for name in given.parts:
        last: list[str] = []
        if (root / name / "weights").is_dir():
            continue
        part = PARTS[name]
        if given.steps and "long" not in name:
            part = with_steps(part, given.steps)
        config = config_of(part, root / part.start / "weights", pictures)
        run_training(config, root / name, encoder(root), device="cpu", progress=tell)
        if last != ["finished"]:
            sys.exit(f"{name}: paused, the same command goes on")


def parts_of(row: tuple[str, str, str]) -> list[str]:
    """The parts of a row: one, or one a seed."""
    return [name for name in PARTS if name == row[2] or name.startswith(f"{row[2]} seed")]


def cell(found: Sequence[Figures], name: str) -> str:
    """The mean of a figure, and the standard deviation over several seeds."""
    means = [float(np.mean(each[name])) for each in found]
    spread = f" ± {np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
    return f"{np.mean(means):.3f}{spread}"


def show(title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[Figures]]]) -> None:
    """Prints a table of figures, a row for each label."""
    print(f"\n| arm | trained, {title} | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
    for label, found in rows:
        print(f"| {label} |", " | ".join(cell(found, name) for name in names), "|")
    print("| | questions |", " | ".join(f"{len(rows[0][1][0][name]):,}" for name in names), "|")


def finished(root: Path) -> dict[str, list[Model]]:
    """The rows of which every part is trained."""
    return {
        f"{row[0]} | {row[1]}": [
            (root / part / "weights", PARTS[part].stage.route == "adapted") for part in parts_of(row)
        ]
        for row in ROWS
        if all((root / part / "weights").is_dir() for part in parts_of(row))
    }


def tables(models: Mapping[str, Sequence[Model]], asked: list[Asked], silent: str) -> None:
    """Prints the accuracy of models, several seeds in a row, and the parameters of the first one.

    `silent` is a pattern of parameters that are zero.
    """
    kinds = [f"{level}, noun {enough}" for level in LEVELS[1:] for enough in ("enough", "not enough")]
    kinds += [f"not enough: {kind}" for kind in ("place", "another", "its class")]
    perfect = ("- | all that the noun names", [figures(asked, [None] * len(asked))])
    found: dict[str, list[tuple[str, list[Figures]]]] = defaultdict(list)
    for label, seeds in models.items():
        told = []
        for path, adapted in seeds:
            model = without(load_model(path), silent)
            told.append(answers(model, [one.batch for one in asked], adapted))
        for score in SCORES:
            found[f"score {score}"].append((label, [figures(asked, each, score) for each in told]))
        found["told apart"].append((label, [told_apart(asked, each) for each in told]))
    for title in (f"score {score}" for score in SCORES):
        for names in ([*LEVELS, "right", "nothing"], kinds):
            show(title, names, [perfect, *found[title]])
    show("told apart", [*LEVELS[1:], "place", "another", "its class"], found["told apart"])
    groups: dict[str, int] = defaultdict(int)
    for name, value in load_model(next(iter(models.values()))[0][0]).named_parameters():
        groups[group_of(name)] += value.numel()
    print(f"\nparameters: {', '.join(f'{group} {count:,}' for group, count in groups.items())}")


@torch.no_grad()
def without(model: SAM3I, pattern: str) -> SAM3I:
    """The model with the parameters of a pattern zero."""
    for name, value in model.named_parameters():
        if re.search(pattern, name):
            value.zero_()
    return model


def sites(root: Path, part: str, asked: list[Asked]) -> None:
    """Prints the accuracy of a part with one kind of adapters silent after the other."""
    names = ["simple", "complex", "simple, noun not enough", "complex, noun not enough", "right", "nothing"]
    print(f"| silent | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for site in SITES:
        model = without(load_model(root / part / "weights"), SITES[site])
        if site == "mask embedder":
            model.copy_mask_embedder()
        found = figures(asked, answers(model, [one.batch for one in asked], True), SCORES[0])
        print(f"| {site} |", " | ".join(cell([found], name) for name in names), "|")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--start", type=Path, default=BUNDLE, help="bundle to start from; else sam3i-nano's")
    parser.add_argument(
        "--steps", nargs=4, type=int, help="of a base, of stages 1, 2, 3; else 1400 240 160 60"
    )
    parser.add_argument("--pictures", nargs=2, metavar=("TRAIN", "HELD-OUT"), default=("", ""))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="to train; else all")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--weights", type=Path, help="print the tables of this model")
    parser.add_argument("--silent", default="^$", help="pattern of parameters that are zero in the tables")
    parser.add_argument("--batches", type=int, default=25, help="of 48 questions each")
    parser.add_argument("--sites", choices=[n for n, part in PARTS.items() if part.stage.route == "adapted"])
    given = parser.parse_args()
    path, validation = given.pictures
    vocabulary = "tabletop" if path else "shapes"
    share = 1 - DRAWN if path else 1.0
    pictures = DataSource(path=path, validation=validation, vocabulary=vocabulary, weight=share)
    if not (given.table or given.sites or given.weights):
        train(given, pictures)
        return
    models = finished(given.root)
    if given.weights:
        models = {"- | unadapted": [(given.weights, False)], "- | adapted": [(given.weights, True)]}
    sizes = read_config(given.weights or given.root / "start/weights")
    asked = questions(pictures, encoder(given.root), sizes.image_size, sizes.mask_size, given.batches)
    if given.sites:
        sites(given.root, given.sites, asked)
    else:
        tables(models, asked, given.silent)


if __name__ == "__main__":
    main()
