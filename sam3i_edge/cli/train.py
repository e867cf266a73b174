"""`sam3i-edge train`: the curriculum of a nano model, or further stages of a bundle. Needs torch."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json
from sam3i_edge.cli.output import steps as steps_shown

if TYPE_CHECKING:
    from sam3i_edge.bundle.folder import Bundle
    from sam3i_edge.pipeline.tokenizer import Tokenizer
    from sam3i_edge.train.run import TrainingReport
    from sam3i_edge.train.run_config import TrainConfig

_CORPUS_SEED = 7
_CORPUS_PHRASES = 40_000


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run, for all that it writes.")],
    config: Annotated[
        str | None, typer.Argument(help="A JSON file, or the name of a preset: sam3i-nano.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="A bundle to go on from: sam3i-nano, a folder, or a Hub id.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="With --bundle: folder with annotations.json and images/. [default: drawn scenes]"),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="With --bundle: 1 (simple), 2 (complex), 3 (both) or base; may be given again."),
    ] = None,
    qat: Annotated[
        str | None, typer.Option(help="With --bundle: train as quantized, by recipe int8, int8w or int4.")
    ] = None,
    official: Annotated[
        bool,
        typer.Option("--official", help="With --bundle and --data: SAM3-I's own stages, losses and rates."),
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(help="With --bundle: a bundle to learn from, too; the student's detector came from it."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="With --bundle: steps of each stage.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json to use; the run keeps a copy. A JSON file that starts from trained weights "
            "wants theirs. [default: the run's, else one is trained]"
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda or cuda:1.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that is in the folder.")] = True,
    shard: Annotated[
        bool, typer.Option("--shard", help="Split the model over the processes of torchrun.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop at a checkpoint after this time; resume later.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Trains a model from nothing, fine-tunes a bundle, or goes on where an interrupted run stopped."""
    if (config is None) == (bundle is None):
        raise ValueError("name what to train: a preset or JSON file, or --bundle to go on from")
    if bundle is not None and tokenizer is not None:
        raise ValueError("--tokenizer goes with a config: a bundle has its own")
    if bundle is None and (data or stage or qat or steps or official or teacher):
        raise ValueError(
            "--data, --stage, --qat, --official, --teacher and --steps go with --bundle; a JSON file has its "
            "own"
        )
    if teacher and (qat or official):
        raise ValueError("--teacher goes with --stage: leave --qat and --official out")
    if official and (data is None or stage or qat):
        raise ValueError("--official wants --data, and has stages of its own: leave --stage and --qat out")
    with needs("train", "train"):
        import sam3i_edge.train.trainer

    if qat is not None:
        with needs("train --qat", "qat"):
            import sam3i_edge.quantize.qat  # noqa: F401
    if bundle is not None:
        chosen, encoder = _from_bundle(bundle, out, data, stage or [], qat, steps, official, teacher)
    else:
        assert config is not None
        chosen, encoder = _from_config(config, out, tokenizer)
    if shard:
        chosen = replace(chosen, shard=True)
    if not chosen.data:
        note("no --data: training on drawn scenes, of simple shapes")
    run(chosen, out, encoder, device=device, resume=resume, max_minutes=max_minutes, as_json=as_json)


def run(
    chosen: TrainConfig,
    out: Path,
    encoder: Tokenizer,
    *,
    device: str,
    resume: bool,
    max_minutes: float | None,
    as_json: bool,
) -> None:
    """Trains, tells how it goes, and says how it ended."""
    from sam3i_edge.train.trainer import run_training

    last: list[TrainingReport] = []
    with steps_shown() as bar:

        def tell(report: TrainingReport) -> None:
            last[:] = [report]
            values = " ".join(f"{name} {value:.4g}" for name, value in report.values.items())
            bar(f"training stage {report.stage}", report.step / report.steps)
            note(f"{report.stage} {report.step:,}/{report.steps:,} {report.kind} {values}".rstrip())

        run_training(
            chosen,
            out,
            lambda text: encoder.encode(text).ids,
            resume=resume,
            device=device,
            progress=tell,
            preparing=bar,
            max_minutes=max_minutes,
        )
    if not last:  # a rank that another one reports for
        return
    finished = last[-1].kind == "finished"
    if as_json:
        print_json({"out": str(out), "finished": finished})
    else:
        typer.echo(f"{out}: {'finished' if finished else 'paused, the same command goes on'}")


def _from_config(config: str, out: Path, tokenizer: Path | None) -> tuple[TrainConfig, Tokenizer]:
    from sam3i_edge.model.config import PRESETS as MODELS
    from sam3i_edge.model.weights import read_config
    from sam3i_edge.train.presets import PRESETS, preset
    from sam3i_edge.train.run_config import TrainConfig

    is_file = config.endswith(".json") or (config not in PRESETS and Path(config).exists())
    chosen = TrainConfig.read(Path(config)) if is_file else preset(config)
    if chosen.model and chosen.model not in MODELS:
        raise ValueError(f"{config}: unknown model {chosen.model!r}; choose from {', '.join(MODELS)}")
    sizes = MODELS[chosen.model] if chosen.model else read_config(Path(chosen.start))
    if chosen.start and tokenizer is None and not (out / "tokenizer.json").exists():
        raise ValueError(
            f"{config} starts from the weights in {chosen.start}, which know words by the ids of their own "
            "tokenizer: name it with --tokenizer"
        )
    vocabularies = tuple({"shapes" if not s.path else s.vocabulary: None for s in chosen.sources})
    return chosen, _tokenizer(out, tokenizer, sizes.vocab_size, vocabularies)


def _from_bundle(
    name: str,
    out: Path,
    data: Path | None,
    stages: list[str],
    qat: str | None,
    steps: int | None,
    official: bool,
    teacher: str | None,
) -> tuple[TrainConfig, Tokenizer]:
    from sam3i_edge.model.config import SAM3I_OFFICIAL
    from sam3i_edge.model.weights import read_config
    from sam3i_edge.train.presets import fine_tuning, quantization_aware

    if data is not None and not (data / "annotations.json").is_file():
        raise ValueError(f"{data} holds no annotations.json: name a folder with that and images/")
    opened, weights = open_weighted(name)
    start, folder = str(weights), str(data.resolve()) if data else ""
    if qat is not None and stages:
        raise ValueError("--qat has stages of its own, base and 3: leave --stage out")
    adapters, taught = 0, ""
    if teacher is not None:
        other, its = open_weighted(teacher)
        _same_tokens(other, opened)
        taught, adapters = str(its), read_config(its).adapter_dim
    has_adapters = bool(read_config(weights).adapter_dim)
    adapters = 0 if has_adapters or stages == ["base"] else adapters or SAM3I_OFFICIAL.adapter_dim
    if official:
        chosen = _official(start, folder)
        chosen = replace(chosen, sizes={"adapter_dim": adapters} if adapters else {})
    elif qat:
        chosen = quantization_aware(qat, start, folder)
        chosen = chosen if has_adapters else replace(chosen, stages=chosen.stages[:1])
    else:
        chosen = fine_tuning(stages or ["3"], start, folder, adapters=adapters, teacher=taught)
        if adapters:
            note(f"{name} has no adapters: new ones of bottleneck {adapters} are built")
    return as_asked(chosen, steps), keep_tokenizer(opened, out)


def open_weighted(name: str) -> tuple[Bundle, Path]:
    """A bundle and the folder of its float weights.

    Raises:
        ValueError: it holds none.
    """
    from sam3i_edge.bundle.folder import Bundle, find_bundle

    opened = Bundle.open(find_bundle(name))
    weights = opened.weights()
    if weights is None:
        raise ValueError(f"{name} holds no float weights to go on from: export it again")
    return opened, weights.resolve()


def as_asked(chosen: TrainConfig, steps: int | None) -> TrainConfig:
    """The run with that many steps a stage, and this machine's threads."""
    from sam3i_edge.devices.machine import usable_cores

    if steps is not None:
        cut = tuple(replace(s, steps=steps, warmup=min(s.warmup, steps // 10)) for s in chosen.stages)
        chosen = replace(chosen, stages=cut)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's processes on this machine
    return replace(chosen, threads=max(1, usable_cores() // ranks))


def keep_tokenizer(opened: Bundle, out: Path) -> Tokenizer:
    """The bundle's tokenizer, of which the run keeps a copy."""
    given, own = opened.file(opened.manifest.tokenizer.file), out / "tokenizer.json"
    _keeps_tokenizer(own, given)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(given, own)
    return opened.tokenizer()


def _same_tokens(teacher: Bundle, student: Bundle) -> None:
    texts = [bundle.file(bundle.manifest.tokenizer.file).read_bytes() for bundle in (teacher, student)]
    if texts[0] != texts[1]:
        raise ValueError(
            f"{teacher.root} has another tokenizer than {student.root}, so that the two read other words: "
            "convert both with the same --tokenizer"
        )


def _official(start: str, folder: str) -> TrainConfig:
    from sam3i_edge.data.annotations import ANNOTATIONS, read_annotations
    from sam3i_edge.train.released_curriculum import BATCH, sam3i_run

    ranks = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's processes on all machines
    records = len(read_annotations(Path(folder) / ANNOTATIONS))
    return sam3i_run(start, folder, records, images=max(1, BATCH // ranks), ranks=ranks)


def _keeps_tokenizer(own: Path, given: Path) -> None:
    if own.exists() and given.read_bytes() != own.read_bytes():
        raise ValueError(
            f"{own} differs from {given}: a run keeps its tokenizer, name another folder with --out"
        )


def _tokenizer(out: Path, given: Path | None, vocab_size: int, vocabularies: tuple[str, ...]) -> Tokenizer:
    """Opens the run's own tokenizer, after copying or training it where the run has none yet."""
    from sam3i_edge.data.corpus import corpus
    from sam3i_edge.data.vocabulary import load_vocabulary
    from sam3i_edge.pipeline.tokenizer import SPECIAL_TOKENS, Tokenizer, train_bpe

    start, end = SPECIAL_TOKENS.index("<start>"), SPECIAL_TOKENS.index("<end>")
    own = out / "tokenizer.json"
    if given is not None:
        _keeps_tokenizer(own, given)
    source = own if own.exists() else given
    if source is None:
        note(f"training a tokenizer of {vocab_size:,} entries")
        out.mkdir(parents=True, exist_ok=True)
        words = [load_vocabulary(name) for name in vocabularies]
        return train_bpe(corpus(_CORPUS_SEED, _CORPUS_PHRASES, words), vocab_size, own)
    tokenizer = Tokenizer.from_file(source, start_id=start, end_id=end)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(f"{source} has {tokenizer.vocab_size:,} entries, the model holds {vocab_size:,}")
    if source != own:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, own)
    return tokenizer
