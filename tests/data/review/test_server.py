import errno
import http.client
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sam3i_edge.data.review import folder as review_folder
from sam3i_edge.data.review.server import review_server
from sam3i_edge.errors import DataError
from sam3i_edge.pipeline.preprocess import load_image


def _ask(server, path, body=None, *, method=None, **headers):
    """Status, headers and body of an answer; a header None is left out."""
    given = {"Host": server.hosts[0], "Authorization": f"Bearer {server.token}"} | headers
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if content is not None and "Content-Length" not in given:
        given["Content-Length"] = str(len(content))
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
    for name, value in given.items():
        if value is not None:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(content)
    answer = connection.getresponse()
    result = answer.status, answer.headers, answer.read()
    connection.close()
    return result


def _decisions(folder):
    return [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]


def test_the_page_asks_no_other_host_and_its_script_alone_may_run(server):
    status, headers, page = _ask(server, "/", Authorization=None)
    assert status == 200
    assert b"http" not in page.replace(b"http-equiv", b"")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert server.token.encode() not in page


def test_items_and_pictures_are_those_of_the_folder(server, folder, lines):
    summary = json.loads(_ask(server, "/queue")[2])
    assert [item["id"] for item in summary["items"]] == [line["id"] for line in lines]
    shown = json.loads(_ask(server, "/item/1")[2])
    assert shown["targets"] == lines[1]["targets"]
    assert shown["decision"] is None
    status, headers, body = _ask(server, "/picture/1")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    found, wanted = load_image(body).astype(int), load_image(folder / lines[1]["file"]).astype(int)
    assert np.abs(found - wanted).mean() < 4


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/queue", {"Authorization": None}, 401),
        ("/queue", {"Authorization": "Bearer wrong"}, 401),
        ("/picture/0", {"Authorization": None}, 401),
        ("/", {"Host": "evil.example"}, 403),
        ("/queue", {"Host": None}, 403),
        ("/queue", {"Origin": "http://evil.example"}, 403),
        ("/item/4", {}, 404),
        ("/picture/../review.jsonl", {}, 404),
        ("/review.jsonl", {}, 404),
    ],
)
def test_what_is_not_for_the_page_is_refused(server, path, headers, status):
    found, _, body = _ask(server, path, **headers)
    assert found == status
    assert b"item-0" not in body


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"id": "item-0", "decision": "accept"}, {"Authorization": None}, 401),
        ({"id": "item-0", "decision": "accept"}, {"Origin": "null"}, 403),
        ({"id": "item-9", "decision": "accept"}, {}, 404),
        ({"id": "item-0", "decision": "burn"}, {}, 400),
        ({"id": "item-0", "decision": "mend", "text": "x", "targets": [99]}, {}, 400),
        ({"id": "item-0", "decision": "mend", "text": "  ", "targets": [0]}, {}, 400),
        ({"id": "item-0", "decision": "mend", "targets": [0]}, {}, 400),
        ({"decision": "undo"}, {}, 409),
        (b"{", {}, 400),
        (b"x" * 65_537, {}, 413),
        (b"{}", {"Content-Length": None}, 413),
        (b"{}", {"Content-Length": "-1"}, 413),
    ],
)
def test_a_decision_that_is_not_clear_is_refused_and_not_written(server, folder, body, headers, status):
    assert _ask(server, "/decision", body, **headers)[0] == status
    assert not (folder / "decisions.jsonl").exists()


def test_decisions_are_on_disk_when_the_answer_comes(server, folder, lines):
    _ask(server, "/decision", {"id": "item-0", "decision": "accept", "text": "not taken", "targets": [1]})
    _ask(
        server,
        "/decision",
        {"id": "item-1", "decision": "mend", "text": "all  round\nones", "targets": [2, 0]},
    )
    _ask(server, "/decision", {"id": "item-2", "decision": "reject"})
    accepted, mended, rejected = _decisions(folder)
    assert (accepted["decision"], accepted["text"], accepted["targets"]) == (
        "accept", lines[0]["text"], lines[0]["targets"],
    )  # fmt: skip
    objects = lines[1]["targets"] + lines[1]["others"]
    assert (mended["text"], mended["targets"]) == ("all round ones", [objects[0], objects[2]])
    assert (rejected["id"], rejected["decision"]) == ("item-2", "reject")
    assert server.review.counts() == {"accept": 1, "mend": 1, "reject": 1, "undecided": 1}


def test_a_mending_that_changes_nothing_is_an_acceptance(server, folder, lines):
    _ask(
        server, "/decision", {"id": "item-1", "decision": "mend", "text": lines[1]["text"], "targets": [1, 0]}
    )
    assert _decisions(folder)[0]["decision"] == "accept"


def test_undo_takes_back_the_last_and_gives_what_stood_before(server, folder):
    for click in ({"id": "item-0", "decision": "accept"}, {"id": "item-0", "decision": "reject"}):
        _ask(server, "/decision", click)
    for stands in ("accept", None):
        answer = json.loads(_ask(server, "/decision", {"decision": "undo"})[2])
        assert answer == {"id": "item-0", "decision": stands}
    assert _ask(server, "/decision", {"decision": "undo"})[0] == 409
    assert [line["decision"] for line in _decisions(folder)] == ["accept", "reject", "undo", "undo"]


def test_a_disk_that_is_full_costs_only_the_click(server, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(review_folder, "append_decision", full)
        status, _, body = _ask(server, "/decision", {"id": "item-0", "decision": "accept"})
    assert status == 507
    assert b"No space left on device" in body
    assert server.review.counts()["undecided"] == 4
    assert _ask(server, "/decision", {"id": "item-0", "decision": "accept"})[0] == 200


def test_pictures_come_from_the_folder_of_pictures_alone(server, folder, tmp_path):
    outside = tmp_path / "outside.png"
    (folder / "images" / "000000.png").rename(outside)
    assert _ask(server, "/picture/0")[0] == 404
    (folder / "images" / "000000.png").symlink_to(outside)
    assert _ask(server, "/picture/0")[0] == 403


def test_a_linked_folder_of_pictures_is_fine(server, folder, tmp_path):
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert _ask(server, "/picture/0")[0] == 200


def test_another_picture_under_the_name_is_told(server, folder):
    Image.new("RGB", (30, 20)).save(folder / "images" / "000000.png")
    status, _, body = _ask(server, "/picture/0")
    assert status == 409
    assert b"20 x 30" in body


def test_a_second_server_is_refused_even_from_another_process(server, folder):
    with pytest.raises(DataError, match=r"under review already, by process \d+"), review_server(folder):
        pass
    code = (
        f"from sam3i_edge.data.review.server import review_server\nwith review_server({str(folder)!r}): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "under review already" in done.stderr


def test_a_port_that_is_taken_is_wrong_usage(server, folder, tmp_path):

    shutil.copytree(folder, tmp_path / "other")
    with (
        pytest.raises(ValueError, match="leave it out"),
        review_server(tmp_path / "other", server.server_port),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "match"),
    [(None, "instruct"), ("", "nothing to review"), ("{}\n", "line 1: id")],
)
def test_a_folder_without_anything_to_review_is_told(tmp_path, content, match):
    if content is not None:
        (tmp_path / "review.jsonl").write_text(content)
    with pytest.raises(DataError, match=match), review_server(tmp_path):
        pass
    with pytest.raises(DataError, match="no folder"), review_server(tmp_path / "none"):
        pass
