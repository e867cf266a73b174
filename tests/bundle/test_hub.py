"""The Hub, and where the way there is broken: one line says so. Nothing here leaves the machine."""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from sam3i_edge.bundle import hub
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.errors import ArtifactError

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


def _hub(monkeypatch, download):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: None)  # what says that it is there


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _hub_at_commit(monkeypatch, tiny_bundle, tmp_path):
    """A Hub whose every branch is at COMMIT; what it was asked comes back."""
    asked = []

    def download(name, *, revision, token, local_files_only, allow_patterns, local_dir=None):
        asked.append((name, revision, local_files_only, allow_patterns))
        if local_dir is None:  # the Hub's own cache
            return str(tmp_path / "hub" / "models--org--model" / "snapshots" / COMMIT)
        shutil.copytree(tiny_bundle.root, local_dir, dirs_exist_ok=True)
        return str(local_dir)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _hub(monkeypatch, download)
    return asked


@pytest.mark.parametrize("revision", [None, "v1", COMMIT[:12]])
def test_a_name_on_the_hub_becomes_a_commit_that_is_told_once(
    tiny_bundle, tmp_path, monkeypatch, caplog, revision
):
    hub._tell_commit.cache_clear()
    asked = _hub_at_commit(monkeypatch, tiny_bundle, tmp_path)
    found = find_bundle("org/model", revision=revision, offline=True)
    assert asked == [("org/model", revision, True, hub._SMALL), ("org/model", COMMIT, True, None)]
    assert found.name == f"org--model@{COMMIT}"
    assert Bundle.open(found).manifest.name == "tiny"
    assert find_bundle("org/model", revision=revision) == found
    (told,) = caplog.messages
    assert told.startswith(f"org/model: {revision or 'main'!r} is commit {COMMIT} today")


def test_a_commit_of_the_hub_is_taken_as_it_is(tiny_bundle, tmp_path, monkeypatch, caplog):
    asked = _hub_at_commit(monkeypatch, tiny_bundle, tmp_path)
    assert find_bundle("org/model", revision=COMMIT).name == f"org--model@{COMMIT}"
    assert asked == [("org/model", COMMIT, False, None)]
    assert caplog.messages == []


def test_a_silent_hub_leaves_what_was_fetched_before(tiny_bundle, tmp_path, monkeypatch):
    asked = _hub_at_commit(monkeypatch, tiny_bundle, tmp_path)
    monkeypatch.setattr(hub, "_answers", lambda *_: False)
    assert find_bundle("org/model").name == f"org--model@{COMMIT}"
    assert [offline for _, _, offline, _ in asked] == [True, True]
    monkeypatch.setattr(hub, "_answers", None)  # nobody asks for a commit that is here
    assert find_bundle("org/model", revision=COMMIT).name == f"org--model@{COMMIT}"


@pytest.mark.parametrize("kind", ["ConnectionError", "LocalEntryNotFoundError"])
def test_hub_that_does_not_answer(monkeypatch, kind):
    from huggingface_hub import errors

    def download(*_, **__):
        raise {"ConnectionError": ConnectionError, **vars(errors)}[kind]("no route\nto host")

    _hub(monkeypatch, download)
    with pytest.raises(ArtifactError, match=r"no folder 'org/model', and the Hub did not give .*: no route$"):
        find_bundle("org/model")


def test_gated_hub_bundle_says_what_to_do(monkeypatch):
    from huggingface_hub.errors import GatedRepoError

    def download(*_, **__):
        raise GatedRepoError.__new__(GatedRepoError)  # its constructor wants a server's response

    _hub(monkeypatch, download)
    with pytest.raises(ArtifactError, match="'org/model' is gated: accept its terms"):
        find_bundle("org/model")
