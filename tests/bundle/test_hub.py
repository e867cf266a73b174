"""The Hub where the way there is broken: one line says so. Nothing here leaves the machine."""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

# `info some/model`, with less patience.
HURRIED = """
import sys
from sam3i_edge.bundle import hub
from sam3i_edge.cli.app import main
hub._PATIENCE = 3.0
sys.exit(main(["info", "some/model"]))
"""


@contextmanager
def proxy(answer):
    """The address of a proxy that gives every connection one answer, or None, and what it was asked."""
    asked = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.request.recv(65536).split()[0].decode())
            if answer is None:
                time.sleep(5)
            else:
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.fixture
def refusal(tmp_path):
    """What `info org/name` says, where nothing but the variables given says how to reach the Hub."""

    def run(**variables):
        keep = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        done = subprocess.run(
            [sys.executable, "-c", HURRIED], check=False, capture_output=True, text=True,
            env={**keep, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", **variables},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(
            "sam3i-edge: there is no folder 'some/model', and the Hub did not give a bundle"
        )
        return line

    return run


@pytest.mark.parametrize(
    "address",
    [
        "::::",
        "http://[::1",
        "proxy:port",
        "ftp://127.0.0.1:1",
        "socks4://127.0.0.1:1",
        "socks5://127.0.0.1:1",
    ],
)
def test_a_proxy_that_is_no_address(refusal, address):
    line = refusal(HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY=address)
    assert line.endswith("; HTTPS_PROXY sets a proxy: correct or unset it")


def test_no_one_at_the_proxys_address(refusal):
    with proxy(b"") as (address, _):
        pass
    line = refusal(HF_ENDPOINT="https://hub.invalid", https_proxy=address, NO_PROXY="http://[, ,::::")
    assert "refused" in line
    assert line.endswith("; https_proxy sets a proxy: correct or unset it")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
        b"\x00\xffhello\r\n\r\n",
        b"",
    ],
    ids=["refuses", "babbles", "hangs up"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_let_us_through(refusal, scheme, answer):
    with proxy(answer) as (address, asked):
        variable = f"{scheme.upper()}_PROXY"
        line = refusal(HF_ENDPOINT=f"{scheme}://hub.invalid", **{variable: address})
    assert asked[0] == ("GET" if scheme == "http" else "CONNECT")
    assert line.endswith(f"; {variable} sets a proxy: correct or unset it")


def test_a_proxy_that_says_nothing(refusal):
    with proxy(None) as (address, asked):
        line = refusal(HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=address)
    assert asked == ["GET"]
    assert "no answer within 3 s" in line


def test_a_proxy_is_passed_by_where_no_proxy_says_so(refusal):
    with proxy(b"") as (address, asked):
        line = refusal(HF_ENDPOINT="http://127.0.0.1:1", HTTP_PROXY=address, NO_PROXY="127.0.0.1")
    assert asked == []
    assert "refused" in line
