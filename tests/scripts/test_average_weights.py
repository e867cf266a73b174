"""The script that averages the weights of runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


@pytest.fixture
def average(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import average_weights

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["average_weights.py", *map(str, arguments)])
        average_weights.main()

    return run


def _run(folder, **tensors):
    (folder / "weights").mkdir(parents=True)
    save_file(tensors, folder / "weights" / "base.safetensors", metadata={"step": folder.name})
    (folder / "config.json").write_text(folder.name)
    (folder / "last.pt").write_text("large")
    return folder


def test_the_weighted_mean_under_the_first_ones_name(tmp_path, average):
    one = _run(tmp_path / "one", a=torch.tensor([1.0, 2.0]), n=torch.tensor([3, 4]))
    two = _run(tmp_path / "two", a=torch.tensor([3.0, 6.0]), n=torch.tensor([9, 9]))
    average(f"{one}=0.75", f"{two}=0.25", "--out", tmp_path / "mean")
    path = tmp_path / "mean" / "weights" / "base.safetensors"
    assert {name: value.tolist() for name, value in load_file(path).items()} == {"a": [1.5, 3.0], "n": [3, 4]}
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"step": "one"}
    assert sorted(path.name for path in (tmp_path / "mean").iterdir()) == ["config.json", "weights"]


def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path, average, capsys):
    one, two = _run(tmp_path / "one", a=torch.ones(2)), _run(tmp_path / "two", a=torch.ones(3))
    for arguments, reason in (
        ((f"{one}=0.5", f"{two}=0.5"), "base.safetensors of "),
        ((f"{one}=0.5", f"{tmp_path / 'three'}=0.5"), "is missing"),
        ((f"{one}=0.5", f"{two}=0.4"), "shares sum to 0.9, want 1"),
        ((f"{one}", f"{two}=0.5"), "want RUN=SHARE"),
    ):
        with pytest.raises(SystemExit) as ended:
            average(*arguments, "--out", tmp_path / "mean")
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "mean").exists()
    with pytest.raises(SystemExit):
        average(f"{one}=0.5", f"{one}=0.5", "--out", one)
    assert "one is there already" in capsys.readouterr().err
