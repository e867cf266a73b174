"""Cameras and addresses that are lost, that come back, and that stall."""

import contextlib
import socket
import struct
import threading
import time

import cv2
import pytest

from made_camera import reading
from made_segmenter import picture
from sam3i_edge.errors import StreamError
from sam3i_edge.pipeline import video as video_module


def test_a_camera_that_is_unplugged(segmenter, camera):
    camera.frames = 3
    with pytest.raises(StreamError, match="camera 0 stopped after 3 frames: is it still connected"):
        list(segmenter.stream(0, "star"))
    assert camera.released.is_set()


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize(
    ("length", "told"), [(-1, "after 3 frames"), (0, "after 3 frames"), (60, "after 3 of 60 frames")]
)
def test_an_address_that_is_lost_has_not_ended(segmenter, camera, length, told, newest):
    camera.frames, camera.length = 3, length
    with pytest.raises(StreamError, match=f"stopped {told}: is it still connected"):
        list(segmenter.stream("rtsp://camera/live", "star", newest=newest))
    assert camera.released.is_set()


@pytest.mark.parametrize("newest", [True, False])
def test_what_is_lost_is_opened_again(segmenter, camera, monkeypatch, newest):
    monkeypatch.setattr(video_module, "_PAUSE", 0.01)
    camera.frames = 3
    with segmenter.stream(0, "star", newest=newest, reconnect=60) as stream:
        while stream.reconnected < 3:
            next(stream)
        camera.works = False
        camera.read = lambda _: (False, None)
        threading.Timer(0.3, stream.close).start()  # and waiting for it can be ended
        start = time.perf_counter()
        assert len(list(stream)) <= 3
    assert time.perf_counter() - start < 20
    assert reading() == []


def test_what_does_not_come_back_in_time_is_an_error(segmenter, camera, monkeypatch):
    monkeypatch.setattr(video_module, "_PAUSE", 0.01)
    camera.frames, read = 3, camera.read

    def once(self):
        return read(self) if type(self).opens == 1 else (False, None)

    camera.opens, camera.read = 0, once
    monkeypatch.setattr(camera, "isOpened", lambda self: setattr(type(self), "opens", self.opens + 1) or True)
    stream = segmenter.stream(0, "star", reconnect=0.1)
    with pytest.raises(StreamError, match=r"after 3 frames and did not come back within 0\.1 s"):
        list(stream)
    assert (stream.reconnected, camera.opens > 1) == (0, True)


def test_only_what_is_live_can_be_lost(segmenter, video):
    for source in (video, [picture(0)]):
        with pytest.raises(ValueError, match=r"reconnect is for a camera or an address, and .* is neither"):
            segmenter.stream(source, "star", reconnect=5)
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="reconnect must be at least 0 seconds"):
            segmenter.stream(0, "star", reconnect=seconds)


@pytest.fixture
def server():
    """The address of a camera that loses its connection after 8 pictures, and its connections."""
    jpeg = cv2.imencode(".jpg", picture(0, (48, 64)))[1].tobytes()
    head = b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
    connections = []

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.recv(4096)
            connections.append(connection)
            with contextlib.suppress(OSError):  # whoever reads may have closed
                connection.sendall(
                    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n"
                )
                for _ in range(8):
                    connection.sendall(head + jpeg + b"\r\n")
                    time.sleep(0.05)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # reset

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/camera.mjpg", connections


def test_a_real_address_that_is_lost(segmenter, server):
    address, connections = server
    with pytest.raises(StreamError, match="is it still connected"):
        list(segmenter.stream(address, "star", newest=False, timeout=60))
    assert len(connections) == 1


def test_a_real_address_that_comes_back(segmenter, server):
    address, connections = server
    with segmenter.stream(address, "star", newest=False, reconnect=60) as stream:
        while stream.reconnected < 2:
            next(stream)
    assert len(connections) >= 3


def test_a_camera_that_stalls(segmenter, camera):
    camera.stall = 2
    stream = segmenter.stream(0, "star", timeout=0.2)
    start = time.perf_counter()
    with pytest.raises(StreamError, match=r"camera 0 gave no frame for 0\.2 s: is it still connected"):
        list(stream)
    assert time.perf_counter() - start < 4
    camera.released.set()
