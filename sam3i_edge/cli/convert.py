"""`sam3i-edge convert`: an official checkpoint to a bundle. Needs torch and onnx."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sam3i_edge.cli.needs import needs
from sam3i_edge.cli.output import Json, note, print_json, steps


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="sam3.pt, a SAM3-I checkpoint, a transformers folder, or a Hub id such as facebook/sam3."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle to write.")],
    adapters: Annotated[
        Path | None, typer.Option(help="SAM3-I checkpoint to take the adapters from, where SOURCE is a base.")
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
        int | None, typer.Option(min=1, help="Side of the input, pixels: 336, 672 or 1008. [default: 1008]")
    ] = None,
    detections: Annotated[
        int, typer.Option(min=1, help="Most instances of an answer; all queries where there are fewer.")
    ] = 64,
    boxes: Annotated[int, typer.Option(min=0, help="Most boxes of a prompt; 0 for none.")] = 8,
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
    from sam3i_edge.bundle.hub import fetch, is_hub_id
    from sam3i_edge.bundle.writing import check_target

    check_target(out, overwrite)
    path, notes = Path(source), {}
    if not path.exists() and is_hub_id(source):
        path = fetch(
            source,
            "checkpoints",
            "a checkpoint",
            revision=revision,
            token=token,
            offline=offline,
            patterns=HUB_FILES,
        )
        notes = {"source": f"{source}@{path.name.rpartition('@')[2]}"}
    tokenizer, license_file = tokenizer or path / "tokenizer.json", license_file or path / "LICENSE"
    wrong = [
        f"{what} {file} does not exist{hint}"
        for file, what, hint in (
            (path, "the checkpoint", ""),
            (adapters, "the checkpoint of adapters", ""),
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
        path, adapters=adapters, config={"max_detections": detections, **given}, resolution=resolution
    )
    checkpoint = replace(checkpoint, notes={**checkpoint.notes, **notes})
    for reason, keys in checkpoint.dropped.items():
        note(f"left out {len(keys)} tensors: {reason}")
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
