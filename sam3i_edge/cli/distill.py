"""`sam3i-edge distill`: a smaller image encoder for a model, from pictures alone. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note
from sam3i_edge.cli.train import as_asked, keep_tokenizer, open_weighted, run

if TYPE_CHECKING:
    from sam3i_edge.model.config import ModelConfig
    from sam3i_edge.model.vit import ViTEncoder

_PICTURES: Final = 8  # that the cost of leaving out a block is measured on


def distill(
    teacher: Annotated[str, typer.Argument(help="A bundle: sam3i-nano, a folder, or a Hub id.")],
    images: Annotated[Path, typer.Option(help="Folder of pictures; no annotations are read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run, for all that it writes.")],
    backbone: Annotated[
        str, typer.Option(help="Another trunk: repvit-m0.9, tinyvit-5m, efficientvit-b1, ...")
    ] = "",
    width: Annotated[
        float, typer.Option(help="Share of the channels to keep, of the teacher's or of --backbone's.")
    ] = 1.0,
    keep_blocks: Annotated[
        str, typer.Option(help="Of a ViT: how many blocks to keep, or which, as in 0,2,5,7.")
    ] = "",
    vocabulary: Annotated[
        str, typer.Option(help="What pictures are asked for: coco, tabletop, shapes, or a JSON file.")
    ] = "coco",
    steps: Annotated[int | None, typer.Option(min=1, max=1_000_000_000, help="[default: 20,000]")] = None,
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda or cuda:1.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that is in the folder.")] = True,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop at a checkpoint after this time; resume later.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Teaches a smaller image encoder what a model makes of pictures; all else of the model is kept."""
    if not (backbone or keep_blocks or width != 1):
        raise ValueError("say what should be smaller: --backbone, --width or --keep-blocks")
    if keep_blocks and (backbone or width != 1):
        raise ValueError("--keep-blocks keeps the teacher's own trunk: leave --backbone and --width out")
    with needs("distill", "train"):
        from sam3i_edge.data.picture_batches import pictures_in
        from sam3i_edge.data.vocabulary import load_vocabulary
        from sam3i_edge.model.weights import read_config
        from sam3i_edge.train.presets import distillation
        from sam3i_edge.train.smaller_encoder import smaller

    opened, weights = open_weighted(teacher)
    sizes = read_config(weights)
    load_vocabulary(vocabulary)
    files = pictures_in(images)
    kept: tuple[int, ...] = ()
    if keep_blocks:
        kept, changed = _blocks(keep_blocks, sizes, weights, files[:_PICTURES], out)
    else:
        changed = smaller(sizes, backbone, width)
    chosen = distillation(
        str(weights),
        str(images.resolve()),
        changed,
        kept,
        levels=3 if sizes.adapter_dim else 1,
        vocabulary=vocabulary,
    )
    run(
        as_asked(chosen, steps),
        out,
        keep_tokenizer(opened, out),
        device=device,
        resume=resume,
        max_minutes=max_minutes,
        as_json=as_json,
    )


def _blocks(
    asked: str, sizes: ModelConfig, weights: Path, pictures: list[Path], out: Path
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The blocks to keep, and the sizes that they make."""
    from sam3i_edge.model.weights import load_model
    from sam3i_edge.pipeline.preprocess import load_image, to_pixel_values
    from sam3i_edge.train.run_config import TrainConfig
    from sam3i_edge.train.smaller_encoder import block_costs, choose_blocks, without_blocks

    try:
        numbers = [int(word) for word in asked.split(",")]
    except ValueError:
        raise ValueError(f"--keep-blocks is a number or a list such as 0,2,5,7, got {asked!r}") from None
    if "," in asked:
        return tuple(numbers), without_blocks(sizes, numbers)
    without_blocks(sizes, range(sizes.vit_depth))  # is it a ViT?
    choose_blocks(dict.fromkeys(range(sizes.vit_depth), 0.0), numbers[0], sizes.vit_global_blocks)
    if (out / "config.json").exists():  # a run goes on with what it chose
        kept = TrainConfig.read(out / "config.json").kept_blocks
        if len(kept) == numbers[0]:
            return kept, without_blocks(sizes, kept)
    import torch

    half = (0.5, 0.5, 0.5)
    values = [to_pixel_values(load_image(path), sizes.image_size, half, half) for path in pictures]
    costs: dict[int, float] = {}
    note(f"what leaving out each of {sizes.vit_depth} blocks costs, on {len(values)} pictures")
    encoder = cast("ViTEncoder", load_model(weights).image_encoder)  # `without_blocks` has seen to that
    for block, cost in block_costs(encoder, [torch.from_numpy(value) for value in values]):
        costs[block] = cost
        note(f"block {block}: {cost:.4g}")
    kept = choose_blocks(costs, numbers[0], sizes.vit_global_blocks)
    note(f"keeping {', '.join(map(str, kept))}")
    return kept, without_blocks(sizes, kept)
