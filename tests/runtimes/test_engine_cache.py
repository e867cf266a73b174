"""Engines are opened only where all that they depend on is the same, and only as they were written."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from sam3i_edge.devices import nvidia
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.runtimes import engine_cache


@pytest.fixture(autouse=True)
def _cache(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr(nvidia, "_library", fakes.libraries())
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "bundle" / "detector.onnx"
    path.parent.mkdir()
    path.write_bytes(b"a graph with its weights in detector.data")
    (path.parent / "detector.data").write_bytes(b"weights")
    return path


def key_of(graph, precision="fp32"):
    return engine_cache.key_of(graph, "onnxruntime 1.31.1", precision)


def build(key, engine=b"engine", timings=b"timings"):
    """Builds a made-up engine; gives what the timing caches of others held before it was built."""
    with engine_cache.building(key) as folder:
        found = sorted(path.read_bytes() for path in folder.glob("*.timing"))
        (folder / "detector.engine").write_bytes(engine)
        (folder / f"{key.precision}.timing").write_bytes(timings)
    return found


@pytest.mark.parametrize("change", ["precision", "model", "weights", "tensorrt", "capability", "jetpack"])
def test_an_engine_is_found_only_where_all_it_depends_on_is_the_same(fakes, graph, monkeypatch, change):
    build(key_of(graph))
    assert engine_cache.find(key_of(graph)) is not None
    precision = "fp32"
    if change == "precision":
        precision = "fp16"
    elif change == "model":
        graph.write_bytes(graph.read_bytes() + b"!")
    elif change == "weights":
        (graph.parent / "detector.data").write_bytes(b"WEIGHTS")
    elif change == "tensorrt":
        monkeypatch.setattr(nvidia, "_library", fakes.libraries(tensorrt=100300))
    elif change == "capability":
        monkeypatch.setattr(nvidia, "_library", fakes.libraries(driver=fakes.Driver(capability=(11, 0))))
    else:
        board = engine_cache.jetson.Jetson(
            model=None, l4t="39.2.0", jetpack="7.2", memory_bytes=None, power_mode=None
        )
        monkeypatch.setattr(engine_cache.jetson, "detect", lambda root: board)
    assert engine_cache.find(key_of(graph, precision)) is None


def test_a_file_that_the_graph_does_not_name_is_no_part_of_it(graph):
    before = key_of(graph)
    (graph.parent / "notes.txt").write_text("hello")
    assert key_of(graph) == before


def test_timings_of_one_graph_shorten_the_next(graph):
    assert build(key_of(graph)) == []
    assert build(key_of(graph, "fp16")) == [b"timings"]


@pytest.mark.parametrize("fact", ["builder", "tensorrt", "compute_capability", "jetpack"])
def test_timings_of_another_version_or_machine_are_left(graph, fact):
    key = key_of(graph)
    build(dataclasses.replace(key, **{fact: "another"}))
    assert build(key) == []


def test_a_damaged_engine_of_another_graph_is_no_obstacle(graph):
    build(key_of(graph))
    (key_of(graph).folder / "engine.json").write_text('{"key": 3}')
    assert build(key_of(graph, "fp16")) == []


@pytest.mark.parametrize("damage", ["changed", "cut", "unrecorded", "nonsense", "another", "nothing named"])
def test_a_damaged_engine_is_removed_and_that_is_said(graph, caplog, damage):
    key = key_of(graph)
    build(key)
    engine, record = key.folder / "detector.engine", key.folder / "engine.json"
    if damage == "changed":
        engine.write_bytes(b"Engine")
    elif damage == "cut":
        engine.write_bytes(b"")
    elif damage == "unrecorded":
        record.unlink()
    elif damage == "nonsense":
        record.write_text("[]")
    elif damage == "another":
        record.write_text(record.read_text().replace('"fp32"', '"fp16"'))
    else:
        record.write_text(record.read_text().partition('"files"')[0] + '"files": {}}')
    with caplog.at_level(logging.WARNING):
        assert engine_cache.find(key) is None
    assert "is of no use" in caplog.text
    assert "it is built again" in caplog.text
    assert not key.folder.exists()


def test_a_timing_cache_may_grow(graph):
    key = key_of(graph)
    build(key)
    (key.folder / "fp32.timing").write_bytes(b"more timings")
    assert engine_cache.find(key) == key.folder


def test_an_interrupted_build_leaves_nothing_that_looks_whole(graph):
    key = key_of(graph)

    def stop():
        with engine_cache.building(key) as folder:
            (folder / "detector.engine").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert list(engine_cache.cache_folder().iterdir()) == []


def test_the_engine_of_another_process_stays(graph):
    key = key_of(graph)
    with engine_cache.building(key) as mine:
        (mine / "detector.engine").write_bytes(b"mine")
        build(key, b"the other's")
    assert (engine_cache.find(key) / "detector.engine").read_bytes() == b"the other's"
    assert len(list(engine_cache.cache_folder().iterdir())) == 1


def test_only_this_user_may_read_what_is_kept(graph):
    key = key_of(graph)
    build(key)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (key.folder.parent, *key.folder.rglob("*"))}
    assert modes == {"cache": 0o700, "detector.engine": 0o600, "fp32.timing": 0o600, "engine.json": 0o600}
    assert key.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["", "detector.engine", "fp32.timing", ".."])
def test_an_engine_that_others_could_have_written_is_not_opened(graph, what):
    key = key_of(graph)
    build(key)
    (key.folder / what).chmod(0o777)
    with pytest.raises(RuntimeUnavailable, match=r"may be written by others .* run as code"):
        engine_cache.find(key)
    if what in ("detector.engine", "fp32.timing"):
        assert build(key_of(graph, "fp16")) == [], "nor are its timings taken"


def test_without_a_folder_to_write_the_line_says_what_to_set(graph, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: tmp_path / "file" / "engines")
    with pytest.raises(RuntimeUnavailable, match=r"cannot be written here .*set XDG_CACHE_HOME"):
        build(key_of(graph))
