import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sam3i_edge
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.cli import train as verb
from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.devices.machine import usable_cores
from sam3i_edge.install_hint import install_hint
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.train import trainer
from sam3i_edge.train.presets import fine_tuning, preset, quantization_aware
from sam3i_edge.train.run import TrainingReport
from sam3i_edge.train.run_config import TrainConfig


@pytest.fixture
def asked(monkeypatch):
    """What the trainer was asked; it only says that it finished."""
    calls = []

    def run_training(config, out, encode, **options):
        calls.append({"config": config, "out": out, "encode": encode, **options})
        kind = "paused" if options["max_minutes"] else "finished"
        options["preparing"]("calibrating on 2 pairs", 0.5)
        options["progress"](
            TrainingReport(kind="step", stage="base", step=1_000, steps=2_000, values={"loss": 1.25})
        )
        options["progress"](TrainingReport(kind=kind, stage="base", step=2_000, steps=2_000))
        return out

    monkeypatch.setattr(trainer, "run_training", run_training)
    monkeypatch.setattr(verb, "_CORPUS_PHRASES", 300)
    return calls


def test_a_preset_with_a_tokenizer_of_its_own(tmp_path, asked, capsys):
    assert main(["train", "sam3i-nano", "--out", str(tmp_path / "run"), "--json"]) == 0
    shown = capsys.readouterr()
    (call,) = asked
    assert call["config"] == preset("sam3i-nano")
    assert (call["resume"], call["device"], call["max_minutes"]) == (True, "auto", None)
    ids = call["encode"]("the red star")
    assert ids.dtype == np.int64
    assert ids.shape == (32,)
    assert (tmp_path / "run" / "tokenizer.json").is_file()
    assert json.loads(shown.out) == {"out": str(tmp_path / "run"), "finished": True}
    assert "base 1,000/2,000 step loss 1.25" in shown.err
    assert "calibrating on 2 pairs\ntraining stage base\n" in shown.err


def test_going_on_keeps_the_tokenizer(tmp_path, asked):
    arguments = ["train", "sam3i-nano", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    first = (tmp_path / "run" / "tokenizer.json").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == first
    assert asked[0]["encode"]("star").tolist() == asked[1]["encode"]("star").tolist()


def test_a_given_tokenizer_is_copied_once_and_never_replaced(tmp_path, asked, tiny_bundle, capsys):
    arguments = ["train", "sam3i-nano", "--out", str(tmp_path / "run"), "--tokenizer"]
    given = tiny_bundle.root / "tokenizer.json"
    assert main([*arguments, str(given)]) == 0
    assert main([*arguments, str(given)]) == 0
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == given.read_bytes()
    other = tmp_path / "other.json"
    other.write_bytes(given.read_bytes() + b"\n")
    capsys.readouterr()
    assert main([*arguments, str(other)]) == 2
    assert "a run keeps its tokenizer" in capsys.readouterr().err
    assert len(asked) == 2


def test_the_released_curriculum_on_a_users_data(tmp_path, asked, float_bundle, capsys):
    data = tmp_path / "data"
    records = write_scenes(data, 3, 0)
    arguments = ["train", "--bundle", str(float_bundle.root), "--out", str(tmp_path / "run"), "--official"]
    assert main([*arguments, "--data", str(data)]) == 0
    config = asked[0]["config"]
    assert [stage.name for stage in config.stages] == ["1", "2", "3"]
    assert config.stages[0].steps == 8 * -(-len(records) // 8)
    assert (config.data, config.images) == (str(data), 8)
    assert "drawn scenes" not in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--official wants --data" in capsys.readouterr().err


def test_without_data_it_says_what_it_trains_on(tmp_path, asked, float_bundle, capsys):
    arguments = ["train", "--bundle", str(float_bundle.root), "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert "no --data: training on drawn scenes" in capsys.readouterr().err
    assert main([*arguments, "--steps", str(10**20)]) == 2
    assert main([*arguments, "--data", str(tmp_path / "nowhere")]) == 2
    assert "holds no annotations.json" in capsys.readouterr().err


def test_a_pause_is_told_apart_from_the_end(tmp_path, asked, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "sam3i-nano", "-o", out, "--max-minutes", "1", "--no-resume", "-d", "cpu"]) == 0
    assert "paused, the same command goes on" in capsys.readouterr().out
    assert (asked[0]["resume"], asked[0]["device"], asked[0]["max_minutes"]) == (False, "cpu", 1)


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ("sam3i-giga", 1, "no training preset 'sam3i-giga'; choose from sam3i-nano"),
        ("no.json", 1, "cannot read no.json"),
        ("cut.json", 1, "cut.json: Invalid JSON"),
        ("empty.json", 1, "stages"),
    ],
)
def test_wrong_config(tmp_path, monkeypatch, asked, capsys, config, code, message):
    monkeypatch.chdir(tmp_path)
    Path("cut.json").write_text("{")
    Path("empty.json").write_text("{}")
    assert main(["train", config, "--out", "run"]) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert not Path("run").exists()
    assert asked == []


def test_a_config_file(tmp_path, asked):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(preset("sam3i-nano").to_json()))
    assert main(["train", str(file), "--out", str(tmp_path / "run")]) == 0
    assert asked[0]["config"] == preset("sam3i-nano")


def test_the_config_of_a_quantized_run_can_be_given_again(tmp_path, asked, float_bundle):
    config = quantization_aware("int4", str(float_bundle.root / "weights"))
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(replace(config, images=2).to_json()))
    arguments = ["--out", str(tmp_path / "run"), "--tokenizer", str(float_bundle.root / "tokenizer.json")]
    assert main(["train", str(file), *arguments]) == 0
    assert asked[0]["config"] == replace(config, images=2)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["train", "sam3i-nano"], "train"), (["bundle", "run", "--license", "LICENSE"], "export")],
)
def test_without_torch_the_message_says_what_to_install(tmp_path, arguments, extra):
    # A module set to None raises when it is imported, as if it were not installed.
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from sam3i_edge.cli.app import main\n"
        f"sys.exit(main({[*arguments, '--out', str(tmp_path / 'out')]}))"
    )
    root = Path(next(iter(sam3i_edge.__path__))).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 1
    verb = arguments[0]
    assert done.stderr == f"sam3i-edge: 'sam3i-edge {verb}' needs torch: {install_hint(extra)}\n"


def test_a_bundle_is_fine_tuned(tmp_path, float_bundle, scenes, light_training, capsys):
    light_training()
    out = tmp_path / "run"
    arguments = ["train", "--bundle", str(float_bundle.root), "--data", str(scenes), "--out", str(out)]
    assert main([*arguments, "--stage", "1", "--steps", "2", "-d", "cpu", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"out": str(out), "finished": True}
    assert "1 2/2 step loss" in shown.err
    kept = TrainConfig.read(out / "config.json")
    assert [(stage.name, stage.steps, stage.renew) for stage in kept.stages] == [("1", 2, False)]
    assert (kept.start, kept.data) == (str(float_bundle.root / "weights"), str(scenes))
    changed = {
        path.stem: path.read_bytes() != (out / "weights" / path.name).read_bytes()
        for path in (float_bundle.root / "weights").glob("*.safetensors")
    }
    # Adapters of level simple alone, and nothing that the bundle holds is touched.
    assert changed == {"base": False, "simple": True, "complex": False}
    assert (out / "tokenizer.json").read_bytes() == (float_bundle.root / "tokenizer.json").read_bytes()
    Bundle.open(float_bundle.root).verify()


def test_a_bundle_is_trained_as_quantized(tmp_path, float_bundle, scenes, light_training, capsys):
    light_training()
    out = tmp_path / "run"
    arguments = ["train", "--bundle", str(float_bundle.root), "--data", str(scenes), "--out", str(out)]
    assert main([*arguments, "--qat", "int8", "--steps", "2", "-d", "cpu"]) == 0
    shown = capsys.readouterr()
    assert f"{out}: finished" in shown.out
    for stage in ("base", "3"):
        assert f"{stage} 2/2 stage changed_integers" in shown.err
    spec = QuantSpec.load(out / "quant" / "int8.safetensors")
    assert spec.recipe == "int8"
    assert spec.notes["calibration"]["images"] == 12
    assert main([*arguments, "--qat", "int4", "--steps", "2"]) == 1
    assert "holds a run of another config (qat.recipe: 'int8' against 'int4'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to train: a preset or JSON file, or --bundle to go on from"),
        (["sam3i-nano", "--bundle", "BUNDLE"], "name what to train"),
        (
            ["sam3i-nano", "--stage", "1"],
            "--data, --stage, --qat, --official, --teacher and --steps go with --bundle",
        ),
        (
            ["sam3i-nano", "--qat", "int8"],
            "--data, --stage, --qat, --official, --teacher and --steps go with --bundle",
        ),
        (
            ["sam3i-nano", "--steps", "5"],
            "--data, --stage, --qat, --official, --teacher and --steps go with --bundle",
        ),
        (
            ["sam3i-nano", "--data", "data"],
            "--data, --stage, --qat, --official, --teacher and --steps go with --bundle",
        ),
        (["--bundle", "BUNDLE", "--qat", "int8", "--stage", "1"], "--qat has stages of its own"),
        (["--bundle", "BUNDLE", "--qat", "int3"], "unknown recipe 'int3'; choose from int8, int8w, int4"),
        (["sam3i-nano", "--teacher", "BUNDLE"], "--teacher and --steps go with --bundle"),
        (["--bundle", "BUNDLE", "--teacher", "BUNDLE", "--qat", "int8"], "--teacher goes with --stage"),
        (["--bundle", "BUNDLE", "--teacher", "sam3i-nano"], "has another tokenizer than"),
        (["--bundle", "BUNDLE", "--stage", "4"], "unknown stage '4'; choose from base, 1, 2, 3"),
        (["--bundle", "BUNDLE", "--steps", "0"], "steps"),
        (["--bundle", "BUNDLE", "--tokenizer", "x.json"], "--tokenizer goes with a config"),
        (["--bundle", "nowhere/at-all-here/no"], "nowhere/at-all-here/no"),
    ],
)
def test_wrong_combinations_leave_with_2(tmp_path, asked, float_bundle, capsys, arguments, message):
    arguments = [str(float_bundle.root) if word == "BUNDLE" else word for word in arguments]
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert asked == []
    assert not (tmp_path / "run").exists()


def test_a_bundle_without_float_weights_is_refused(tmp_path, asked, tiny_bundle, capsys):
    assert main(["train", "--bundle", str(tiny_bundle.root), "--out", str(tmp_path / "run")]) == 2
    assert "holds no float weights to go on from" in capsys.readouterr().err
    assert asked == []


def test_a_run_keeps_the_tokenizer_of_its_bundle(tmp_path, asked, float_bundle, capsys):
    arguments = ["train", "--bundle", str(float_bundle.root), "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert asked[0]["config"] == replace(fine_tuning(["3"], asked[0]["config"].start), threads=usable_cores())
    assert main(arguments) == 0
    other = b'{"another": "tokenizer"}'
    (tmp_path / "tokenizer.json").write_bytes(other)
    capsys.readouterr()
    assert main(arguments) == 2
    assert "a run keeps its tokenizer" in capsys.readouterr().err
    assert (tmp_path / "tokenizer.json").read_bytes() == other
    assert len(asked) == 2


def test_trained_weights_want_the_tokenizer_that_they_know(tmp_path, asked, float_bundle, capsys):
    config = tmp_path / "my.json"
    config.write_text(json.dumps(fine_tuning(["3"], str(float_bundle.root / "weights")).to_json()))
    arguments = ["train", str(config), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "tokenizer: name it with --tokenizer" in capsys.readouterr().err
    assert (asked, (tmp_path / "run").exists()) == ([], False)
    assert main([*arguments, "--tokenizer", str(float_bundle.root / "tokenizer.json")]) == 0
    assert main(arguments) == 0  # the run has its copy
    assert len(asked) == 2
