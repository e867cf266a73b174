"""`sam3i-edge convert`: an official checkpoint to a bundle. Needs torch and onnx."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, steps
from sam3i_edge.errors import ArtifactError


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="sam3.pt, a SAM3-I, EfficientSAM3 or SAM3-LiteText file, a transformers folder, or a Hub id "
            "such as facebook/sam3 or ORG/NAME/FILE.pt."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle to write.")],
    adapters: Annotated[
        Path | None, typer.Option(help="SAM3-I checkpoint to take the adapters from, where SOURCE is a base.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint to take what SOURCE lacks from, such as sam3.pt.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON with sizes that tensors do not tell. [default: the official ones]"),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="CLIP's merges file or a tokenizer.json. [default: SOURCE's, where it is a folder]"
        ),
    ] = None,
    license_file: Annotated[
        Path | None,
        typer.Option(
            "--license", help="Licence of the weights, copied in. [default: SOURCE's, for a folder]"
        ),
    ] = None,
    license_name: Annotated[str, typer.Option(help="Its short name.")] = "SAM License",
    name: Annotated[str, typer.Option(help="Name of the model.")] = "sam3i",
    resolution: Annotated[
        int | None,
        typer.Option(
            min=1, help="Side of the input, pixels: 336, 672 or 1008; of a student also 504. [default: 1008]"
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Token slots of a student's text encoder: 16 or 32. [default: the file's]"),
    ] = None,
    resize_positions: Annotated[
        bool,
        typer.Option(
            "--resize-positions", help="Interpolate a student's position table in place of cutting it."
        ),
    ] = False,
    presence: Annotated[
        bool, typer.Option("--presence/--no-presence", help="Multiply scores by the presence.")
    ] = True,
    detections: Annotated[
        int, typer.Option(min=1, help="Most instances of an answer; all queries where there are fewer.")
    ] = 64,
    boxes: Annotated[
        int | None,
        typer.Option(
            min=0, help="Most boxes of a prompt; 0 for none. [default: 8, 0 without a geometry encoder]"
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Default least score of an instance.")] = 0.5,
    pairs: Annotated[
        int, typer.Option(min=1, help="Drawn (image, instruction) pairs to compare with the model.")
    ] = 240,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")] = None,
    token: Annotated[str | None, typer.Option(help="Token of the Hub. [default: the stored one]")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what was fetched before.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Converts an official checkpoint, exports it and checks the result against it."""
    with needs("convert", "export"):
        from sam3i_edge.checkpoints.load import read_checkpoint
        from sam3i_edge.checkpoints.sizes import read_sizes
        from sam3i_edge.checkpoints.source import HUB_FILES
        from sam3i_edge.export.float_bundle import convert_bundle
    from sam3i_edge.bundle.hub import fetch, is_hub_id, split_file
    from sam3i_edge.bundle.writing import check_target

    check_target(out, overwrite)
    path, notes = Path(source), {}
    folder = path
    hub_id, file = split_file(source)
    if not path.exists() and is_hub_id(hub_id):
        path = folder = fetch(
            hub_id,
            "checkpoints",
            "a checkpoint",
            revision=revision,
            token=token,
            offline=offline,
            patterns=HUB_FILES if file is None else [file, "LICENSE*"],
        )
        notes = {"source": f"{source}@{path.name.rpartition('@')[2]}"}
        if file is not None:
            path = folder / file
            if not path.is_file():
                raise ArtifactError(
                    f"the Hub's {hub_id!r} has no file {file!r} at {folder.name}: see its page"
                )
    tokenizer, license_file = tokenizer or folder / "tokenizer.json", license_file or folder / "LICENSE"
    wrong = [
        f"{what} {file} does not exist{hint}"
        for file, what, hint in (
            (path, "the checkpoint", ""),
            (adapters, "the checkpoint of adapters", ""),
            (base, "the checkpoint of the base", ""),
            (config, "the file of sizes", ""),
            (tokenizer, "the tokenizer", ": give --tokenizer with CLIP's merges file or a tokenizer.json"),
            (license_file, "the licence", ": give --license with the text that came with the weights"),
        )
        if file is not None and not file.exists()
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    given = read_sizes(config) if config is not None else {}
    checkpoint = read_checkpoint(
        path,
        adapters=adapters,
        base=base,
        config={"max_detections": detections, **given},
        resolution=resolution,
        context=context,
        resize_positions=resize_positions,
        presence=presence,
    )
    if boxes is None:
        boxes = 8 if checkpoint.config.geometry else 0
    checkpoint = replace(checkpoint, notes={**checkpoint.notes, **notes})
    for reason, keys in checkpoint.dropped.items():
        note(f"left out {len(keys)} tensors: {reason}")
    for remark in checkpoint.remarks:
        note(remark)
    if not checkpoint.config.adapter_dim:
        note("no adapters in this checkpoint: the bundle will have level concept only")
    if checkpoint.folded_adapters:
        note(
            f"{checkpoint.folded_adapters} adapters are constants and were folded, "
            f"{checkpoint.folded_bytes / 2**20:,.1f} MiB saved"
        )
    with steps() as tell:
        manifest, agreement = convert_bundle(
            checkpoint,
            tokenizer,
            out,
            name=name,
            license_file=license_file,
            license_name=license_name,
            threshold=threshold,
            pairs=pairs,
            boxes=boxes,
            overwrite=overwrite,
            progress=tell,
        )
    size = sum(record.bytes for record in manifest.files.values())
    if as_json:
        print_json(
            {
                "bundle": str(out),
                "bytes": size,
                "levels": next(iter(manifest.variants.values())).levels,
                "dropped": dict(checkpoint.dropped),
                "remarks": checkpoint.remarks,
                "folded_adapters": checkpoint.folded_adapters,
                "folded_bytes_saved": checkpoint.folded_bytes,
                "variants": list(manifest.variants),
                "agreement": agreement.to_dict(),
            }
        )
    else:
        typer.echo(
            f"{out}: {size / 2**20:,.1f} MiB, {', '.join(manifest.variants)}; against the model on "
            f"{agreement}"
        )
