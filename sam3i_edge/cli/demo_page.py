"""`sam3i-edge demo --web` and `--server`: the page, with drawn pictures to try."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sam3i_edge.cli.output import note, print_json, progress

if TYPE_CHECKING:
    from sam3i_edge.segmenter import Segmenter
    from sam3i_edge.web.site import Example, Site

_EXAMPLES = 4


def page(
    out: Path | None,
    seed: int,
    model: str,
    device: str,
    threads: int | None,
    as_json: bool,
    *,
    server: bool,
    host: str | None,
    port: int | None,
    open_page: bool,
) -> None:
    """Serves the page until Ctrl+C, or writes it into `out`; the rest as the options of `demo`."""
    from sam3i_edge.bundle.folder import Bundle, find_bundle
    from sam3i_edge.segmenter import Segmenter
    from sam3i_edge.web.site import Site

    if server and out is not None:
        raise typer.BadParameter("--out writes the page of --web; one that asks --server is not to be hosted")
    if not server and host is not None:
        raise typer.BadParameter("--host is of --server: browsers run --web on 127.0.0.1 or https alone")
    if not server and (device != "auto" or threads is not None):
        raise typer.BadParameter(
            "--device and --threads are of --server: with --web the browser runs the model"
        )
    if out is not None and (port is not None or open_page):
        raise typer.BadParameter("--port and --open serve the page, --out writes it: choose one")
    if server:
        with progress() as shown:
            shown.add_task(f"opening {model}", total=None)
            segmenter = Segmenter(model, device, threads=threads)
        with segmenter:
            _serve(Site(None, _examples(seed)), segmenter, as_json, host, port, open_page)
        return
    site = Site(Bundle.open(find_bundle(model)), _examples(seed))
    if out is None:
        _serve(site, None, as_json, host, port, open_page)
        return
    site.write(out)
    if as_json:
        print_json({"folder": str(out), "files": sorted(filter(None, site.files))})
    else:
        typer.echo(f"{out}: the page and its model; any server of files hosts it, by https")


def _serve(
    site: Site,
    segmenter: Segmenter | None,
    as_json: bool,
    host: str | None,
    port: int | None,
    open_page: bool,
) -> None:
    from sam3i_edge.loopback import LOOPBACK, is_loopback
    from sam3i_edge.web.server import WebServer

    with WebServer(site, segmenter, port=port or 0, host=host or LOOPBACK) as served:
        url = served.address if segmenter is None else served.url
        if as_json:
            print_json({"url": url})
        else:
            typer.echo(f"the page is at {url} (Ctrl+C ends)")
        if host is not None and not is_loopback(host):
            note(
                "other machines open it under this machine's own address; whoever has the token can ask. "
                "Browsers give no camera to http"
            )
        if open_page:
            typer.launch(url)
        with contextlib.suppress(KeyboardInterrupt):
            served.serve_forever()


def _examples(seed: int) -> list[Example]:
    from PIL import Image

    from sam3i_edge.cli.examples import draw_example
    from sam3i_edge.web.site import Example

    found = []
    for number in range(_EXAMPLES):
        drawn, instructions = draw_example(seed + number)
        png = io.BytesIO()
        Image.fromarray(drawn.pixels()).save(png, "PNG")
        found.append(Example(png=png.getvalue(), instructions=tuple(one.text for one in instructions)))
    return found
