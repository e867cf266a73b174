"""`sam3i-edge train`: the curriculum of a nano model. Needs torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json

if TYPE_CHECKING:
    from sam3i_edge.tokenizer import Tokenizer
    from sam3i_edge.train.trainer import Progress

_CORPUS_SEED = 7
_CORPUS_PHRASES = 40_000


def train(
    config: Annotated[str, typer.Argument(help="A JSON file, or the name of a preset: sam3i-nano.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run, for all that it writes.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json to use; the run keeps a copy. [default: the run's, else one is trained]"
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda or cuda:1.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that is in the folder.")] = True,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop at a checkpoint after this time; resume later.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Trains a model on drawn scenes, or goes on where an interrupted run stopped."""
    with needs("train", "train"):
        from sam3i_edge.model.config import PRESETS as MODELS
        from sam3i_edge.train.config import PRESETS, TrainConfig, preset
        from sam3i_edge.train.trainer import run_training

    is_file = config.endswith(".json") or (config not in PRESETS and Path(config).exists())
    chosen = TrainConfig.read(Path(config)) if is_file else preset(config)
    if chosen.model not in MODELS:
        raise ValueError(f"{config}: unknown model {chosen.model!r}; choose from {', '.join(MODELS)}")
    encoder = _tokenizer(out, tokenizer, MODELS[chosen.model].vocab_size)
    last: list[Progress] = []

    def tell(progress: Progress) -> None:
        last[:] = [progress]
        values = " ".join(f"{name} {value:.4g}" for name, value in progress.values.items())
        note(f"{progress.stage} {progress.step:,}/{progress.steps:,} {progress.kind} {values}".rstrip())

    run_training(
        chosen,
        out,
        lambda text: encoder.encode(text).ids,
        resume=resume,
        device=device,
        progress=tell,
        max_minutes=max_minutes,
    )
    if not last:  # a rank that another one reports for
        return
    finished = last[-1].kind == "finished"
    if as_json:
        print_json({"out": str(out), "finished": finished})
    else:
        typer.echo(f"{out}: {'finished' if finished else 'paused, the same command goes on'}")


def _tokenizer(out: Path, given: Path | None, vocab_size: int) -> Tokenizer:
    """Opens the run's own tokenizer, after copying or training it where the run has none yet."""
    from sam3i_edge.data.instructions import corpus
    from sam3i_edge.tokenizer import SPECIAL_TOKENS, Tokenizer, train_bpe

    start, end = SPECIAL_TOKENS.index("<start>"), SPECIAL_TOKENS.index("<end>")
    own = out / "tokenizer.json"
    if given is not None and own.exists() and given.read_bytes() != own.read_bytes():
        raise ValueError(
            f"{own} differs from {given}: a run keeps its tokenizer, name another folder with --out"
        )
    source = own if own.exists() else given
    if source is None:
        note(f"training a tokenizer of {vocab_size:,} entries")
        out.mkdir(parents=True, exist_ok=True)
        return train_bpe(corpus(_CORPUS_SEED, _CORPUS_PHRASES), vocab_size, own)
    tokenizer = Tokenizer.from_file(source, start_id=start, end_id=end)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(f"{source} has {tokenizer.vocab_size:,} entries, the model holds {vocab_size:,}")
    if source != own:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, own)
    return tokenizer
