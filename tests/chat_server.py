"""A server on loopback that speaks the chat protocol, and answers as a test's brain says."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What goes back. `text` is the model's; the rest is for what goes wrong on the way."""

    text: str = ""
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    wait: float = 0.0
    cut: bool = False
    usage: object = "count"


@dataclass
class Asked:
    """A request: which question it is, its texts by number, and the lines of its objects by number."""

    kind: str
    texts: dict[int, str]
    objects: dict[int, str]
    pictures: list[str]
    body: dict
    authorization: str


class ChatServer(ThreadingHTTPServer):
    """`asked` are the requests so far, `finished` those whose answer went out whole."""

    daemon_threads = True

    def __init__(self, brain: Callable[[Asked], Reply | str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.brain = brain
        self.asked: list[Asked] = []
        self.finished: list[dict] = []
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Clients that went away are part of the tests."""

    def kinds(self) -> list[str]:
        return [one.kind for one in self.asked]


def _understood(body: dict, authorization: str) -> Asked:
    content = body["messages"][0]["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    words = parts[0]["text"]
    kind = "rewrite" if "reword" in words else "propose" if "without naming" in words else "choose"

    def numbered(start: str) -> dict[int, str]:
        block = words.partition(f"{start}\n")[2].partition("\n\n")[0]
        lines = (re.fullmatch(r"(\d+)\. (.*)", line) for line in block.splitlines())
        return {int(line[1]): line[2] for line in lines if line}

    return Asked(
        kind,
        numbered("Target sets:" if kind == "propose" else "Requests:"),
        numbered("The objects of the picture:"),
        [part["image_url"]["url"] for part in parts[1:]],
        body,
        authorization,
    )


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        if self.path != "/v1/chat/completions":
            self._send(Reply(status=404), b'{"error": {"message": "no such page"}}')
            return
        body = json.loads(content)
        asked = _understood(body, self.headers.get("Authorization", ""))
        with server.lock:
            server.asked.append(asked)
        reply = server.brain(asked)
        if isinstance(reply, str):
            reply = Reply(reply)
        time.sleep(reply.wait)
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        message = {"role": "assistant", "content": reply.text}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": usage if reply.usage == "count" else reply.usage,
        }
        self._send(reply, json.dumps(answer).encode() if reply.body is None else reply.body)
        with server.lock:
            server.finished.append(body)

    def _send(self, reply: Reply, content: bytes) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if reply.cut else content)
        if reply.cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_) -> None:
        """Tests are quiet."""
