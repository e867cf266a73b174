"""The page's server, and pages in the browser."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.masks import overlay
from sam3i_edge.web.server import WebServer
from sam3i_edge.web.site import Example, Site


@contextlib.contextmanager
def serving(site, segmenter=None):
    """A server that answers."""
    with WebServer(site, segmenter) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def serve():
    """`serve(site, segmenter=None)`, a context manager that gives a server."""
    return serving


@pytest.fixture(scope="session")
def example(tmp_path_factory) -> Example:
    """A drawn picture and two instructions."""
    path = tmp_path_factory.mktemp("example") / "scene.png"
    overlay.write(draw_scene(np.random.default_rng(11), (320, 448), objects=8).pixels(), path)
    return Example(png=path.read_bytes(), instructions=("red triangles", "the rightmost one"))


@pytest.fixture(scope="session")
def nano(example):
    """A server of the page with the bundled model, and one example."""
    with serving(Site(Bundle.open(find_bundle("sam3i-nano")), [example])) as server:
        yield server


@pytest.fixture
def open_page(chromium):
    """`open_page(address, **context)`: a page in a fresh context.

    An error of a script, or a request to another host, fails the test.
    """
    wrong, contexts = [], []

    def opened(address, **options):
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 760}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # busy machines
        page.on("pageerror", lambda error: wrong.append(str(error)))
        context.on(
            "request",
            lambda asked: (
                asked.url.startswith(("http://127.0.0.1:", "blob:", "data:")) or wrong.append(asked.url)
            ),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def library(open_page):
    """`library(server)`: a page of the server that does nothing, to import the package in."""
    return lambda server, **options: open_page(f"{server.address}LICENSES.txt", **options)
