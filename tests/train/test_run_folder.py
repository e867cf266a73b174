from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sam3i_edge.errors import ArtifactError, TrainingError
from sam3i_edge.files import write_whole
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model, load_weights, read_config, save_weights
from sam3i_edge.train.run_folder import RunFolder, TrainingState


def checkpoint(stage=0, step=3):
    return TrainingState(
        stage=stage,
        step=step,
        model={"a": torch.arange(3.0)},
        heads={},
        average={"updates": 3, "values": {"a": torch.ones(3)}},
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        sums={"loss": 1.5, "count": 1.0, "seconds": 0.5},
    )


def test_round_trip_leaves_no_temporary_file(tmp_path, tiny_run):
    folder = RunFolder(tmp_path / "run")
    assert folder.begin(tiny_run, resume=True) is None
    folder.save(checkpoint())
    folder.release()
    found = RunFolder(tmp_path / "run").begin(tiny_run, resume=True)
    assert found is not None
    assert (found.stage, found.step, found.sums) == (0, 3, {"loss": 1.5, "count": 1.0, "seconds": 0.5})
    assert torch.equal(found.model["a"], torch.arange(3.0))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "config.json", "last.pt"]


def test_a_failed_write_keeps_the_last_checkpoint(tmp_path, tiny_run, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.begin(tiny_run, resume=True)
    folder.save(checkpoint())

    def broken(values, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="No space"):
        folder.save(checkpoint(step=4))
    assert folder.load().step == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.json", "last.pt"]


@pytest.fixture
def small_disk():
    """Files of this process stop at 100 kB; as on a full disk, whoever writes on is told."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_of_the_system(tmp_path, tiny_model, small_disk):
    state = TrainingState(
        stage=0, step=1, model={"x": torch.zeros(100_000)}, heads={}, average={}, optimizer={}, sums={}
    )
    with pytest.raises(OSError, match=r"cannot write .*last\.pt .*: is the disk full\?"):
        RunFolder(tmp_path).save(state)
    with pytest.raises(OSError, match=r"cannot write .*base\.safetensors"):
        save_weights(SAM3I(tiny_model), tmp_path / "weights", {"detector.x": torch.zeros(100_000)})
    with pytest.raises(OSError, match=r"large\.json"):
        write_whole(tmp_path / "large.json", "x" * 200_000)
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_killed_run_left_goes_with_the_next(tmp_path, tiny_run):
    (tmp_path / "weights").mkdir()
    left = [tmp_path / ".last.pt.12-0a1b.part", tmp_path / "weights" / ".base.safetensors.7-ffff.part"]
    own = tmp_path / ".of-somebody-else.part"
    for path in (*left, own):
        path.write_bytes(b"half")
    RunFolder(tmp_path).begin(tiny_run, resume=True)
    assert not any(path.exists() for path in left)
    assert own.exists()


def test_another_config_is_refused_by_field(tmp_path, tiny_run):
    RunFolder(tmp_path).begin(tiny_run, resume=True)
    with pytest.raises(TrainingError, match=r"another config \(seed: 0 against 5, kept against given\)"):
        RunFolder(tmp_path).begin(replace(tiny_run, seed=5), resume=True)
    with pytest.raises(TrainingError, match="already holds a run"):
        RunFolder(tmp_path).begin(tiny_run, resume=False)


def test_one_run_at_a_time(tmp_path, tiny_run):
    """Another process is refused, and let in when the first is over."""
    folder = RunFolder(tmp_path)
    folder.begin(tiny_run, resume=True)
    folder.begin(tiny_run, resume=True)  # the same run may begin anew
    refusal = r"another process trains in .*: wait for it, or choose another folder"
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'wb')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / ".lock")]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 1
    folder.release()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(TrainingError, match=refusal):
            RunFolder(tmp_path).begin(tiny_run, resume=True)
        other.kill()
        other.wait()
        RunFolder(tmp_path).begin(tiny_run, resume=True)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_named(tmp_path, tiny_run, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"last.pt is damaged or of another version"):
        RunFolder(tmp_path).begin(tiny_run, resume=True)


def test_a_checkpoint_of_another_version_is_named(tmp_path, tiny_run):
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"last.pt is damaged or of another version"):
        RunFolder(tmp_path).begin(tiny_run, resume=True)


def test_a_checkpoint_runs_no_code(tmp_path, tiny_run):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="damaged"):
        RunFolder(tmp_path).begin(tiny_run, resume=True)
    assert not (tmp_path / "owned").exists()


def test_metrics_after_the_checkpoint_are_dropped(tmp_path, tiny_run):
    folder = RunFolder(tmp_path)
    folder.begin(tiny_run, resume=True)
    rows = [
        {"stage": s, "step": n} for s, n in (("base", 2), ("base", 4), ("1", 2), ("1", 3), ("1", 4), ("2", 2))
    ]
    for row in rows:
        folder.log(row)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "2", "st')
    folder.save(checkpoint(stage=3, step=3))
    folder.begin(tiny_run, resume=True)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == rows[:4]


def test_metrics_without_a_checkpoint_start_anew(tmp_path, tiny_run):
    folder = RunFolder(tmp_path)
    folder.begin(tiny_run, resume=True)
    folder.log({"stage": "base", "step": 2})
    folder.begin(tiny_run, resume=True)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_weights_by_level(tmp_path, tiny_model):
    torch.manual_seed(1)
    model = SAM3I(tiny_model)
    save_weights(model, tmp_path)
    files = {name: load_file(tmp_path / f"{name}.safetensors") for name in ("base", "simple", "complex")}
    assert not any(".adapter." in name for name in files["base"])
    assert "image_encoder.stem.1.running_mean" in files["base"]
    assert all(".simple." in name for name in files["simple"])
    assert {".bridge." in name or ".complex." in name for name in files["complex"]} == {True}
    assert {name for part in files.values() for name in part} == set(model.state_dict())
    torch.manual_seed(2)
    other = SAM3I(tiny_model)
    load_weights(other, tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    assert read_config(tmp_path) == tiny_model


def test_a_base_alone_loads_and_leaves_the_adapters(tmp_path, tiny_model):
    base = SAM3I(replace(tiny_model, adapter_dim=0))
    save_weights(base, tmp_path)
    assert not (tmp_path / "simple.safetensors").exists()
    model = SAM3I(tiny_model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_weights(model, tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, base.state_dict().get(name, before[name]))


def test_weights_that_do_not_fit_are_named(tmp_path, tiny_model):
    model = SAM3I(tiny_model)
    with pytest.raises(ArtifactError, match=r"base.safetensors is missing; train the base first"):
        load_weights(model, tmp_path)
    save_weights(SAM3I(replace(tiny_model, adapter_dim=4)), tmp_path)
    with pytest.raises(ArtifactError, match=r"simple.safetensors does not fit this model: .* the first is "):
        load_weights(model, tmp_path)
    (tmp_path / "base.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ArtifactError, match=r"base.safetensors cannot be read"):
        load_weights(model, tmp_path)


def test_weights_of_other_sizes_than_model_json_are_named(tmp_path, tiny_model):
    save_weights(SAM3I(tiny_model), tmp_path)
    sizes = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**sizes, "d_model": 2 * sizes["d_model"]}))
    with pytest.raises(ArtifactError, match=r"the tensor \S+ is \[.*\], and the sizes of model.json ask for"):
        load_model(tmp_path)
