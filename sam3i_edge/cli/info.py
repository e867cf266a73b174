"""`sam3i-edge info`: what a bundle holds, and what of it runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam3i_edge.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from sam3i_edge.bundle.folder import Bundle


def info(
    model: Annotated[
        str, typer.Argument(help="sam3i-nano, the folder of a bundle, or a Hub id org/name.")
    ] = "sam3i-nano",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file with its size and sha256.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tells what a model is, what it holds and what of it runs here."""
    from sam3i_edge.bundle.folder import Bundle, find_bundle

    bundle = Bundle.open(find_bundle(model))
    facts = {**_facts(bundle.verify() if verify else bundle), "verified": verify}
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _facts(bundle: Bundle) -> dict[str, Any]:
    import sam3i_edge
    from sam3i_edge.devices.profiles import choose
    from sam3i_edge.errors import Sam3iError
    from sam3i_edge.masks import native

    manifest = bundle.manifest
    try:
        choice = choose(bundle)
        here = {"device": choice.device, "runtime": choice.runtime, "precision": choice.precision}
        runs: dict[str, Any] = {**here, "reason": choice.reason}
    except Sam3iError as error:
        runs = {"device": None, "runtime": None, "precision": None, "reason": str(error)}
    # The manifest lists files, not whose they are: a variant's folder is self-contained.
    sizes = {
        name: sum(
            record.bytes
            for path, record in manifest.files.items()
            if path.split("/")[0] in {graph.split("/")[0] for graph in variant.graphs.values()}
        )
        for name, variant in manifest.variants.items()
    }
    return {
        "name": manifest.name,
        "path": str(bundle.root.resolve()),
        "schema_version": manifest.schema_version,
        "license": manifest.license.name,
        "license_text": bundle.file(manifest.license.file).read_text(encoding="utf-8", errors="replace"),
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "model": manifest.model,
        "preprocessing": manifest.preprocessing.model_dump(),
        "thresholds": manifest.thresholds.model_dump(),
        "provenance": manifest.provenance,
        "variants": {
            name: {
                "runtime": variant.runtime,
                "precision": variant.precision,
                "max_boxes": variant.boxes,
                "bytes": sizes[name],
                "agreement": variant.agreement,
                "versions": variant.versions,
            }
            for name, variant in manifest.variants.items()
        },
        "runs_here": runs,
        "mask_code": native.implementation(),
        "sam3i_edge": sam3i_edge.__version__,
    }


def _print(facts: dict[str, Any]) -> None:
    side = facts["preprocessing"]["image_size"]
    print_table(
        f"{facts['name']}: " + ("every file is as it was written" if facts["verified"] else "not verified"),
        ("", ""),
        [
            ("folder", facts["path"]),
            ("size", f"{facts['bytes'] / 2**20:.1f} MiB"),
            ("licence", facts["license"]),
            ("image size", f"{side} x {side} px"),
            ("threshold", f"{facts['thresholds']['score']:g}"),
            *((key, str(value)) for key, value in facts["provenance"].items()),
        ],
    )
    typer.echo()
    print_table(
        "variants",
        ("name", "runtime", "precision", "max boxes*", "size*", "agreement with the float model"),
        [
            (
                name,
                variant["runtime"],
                variant["precision"],
                str(variant["max_boxes"]),
                f"{variant['bytes'] / 2**20:.1f} MiB",
                ", ".join(f"{key} {value:g}" for key, value in variant["agreement"].items())
                or "not recorded",
            )
            for name, variant in facts["variants"].items()
        ],
    )
    runs = facts["runs_here"]
    typer.echo()
    typer.echo(f"runs here: {runs['reason'] if runs['device'] else 'no: ' + runs['reason']}")
    typer.echo(f"masks are made by: {facts['mask_code']}; sam3i-edge {facts['sam3i_edge']}")
    if facts["license"] != "Apache-2.0":  # the project's own, which everyone knows
        typer.echo(f"\n{facts['license']}:\n\n{facts['license_text'].rstrip()}")
