"""Training checkpoints of audiocraft and VidMuse, `checkpoint.th`, read without their code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures.tiny import encodec, musicgen
from v2m.checkpoints import V2M
from v2m.cli.convert import main
from v2m.core.errors import ENVIRONMENT, OK, USAGE, DependencyError, UsageError
from v2m.pretrained.codecs.encodec import read_compression_file

SECRET = {"generate": {"seconds": 30, "token": "${oc.env:SECRET_OF_THE_TEST}"}, "optim": {"betas": [0.9, 0.95]}}


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    settings = musicgen.audiocraft_config() | SECRET
    return musicgen.write_training(tmp_path, musicgen.audiocraft_model(settings), settings)


def assert_equal_weights(model: V2M, other: V2M) -> None:
    state, expected = model.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize("name", ["", "checkpoint.th", "checkpoint_5.th"])
def test_run_is_read_like_its_export(run: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are those of the best epoch, the codec is that of the settings, and no setting is resolved."""
    monkeypatch.setenv("SECRET_OF_THE_TEST", "hidden")
    shutil.copy(run / "checkpoint.th", run / "checkpoint_5.th")
    model = V2M.from_pretrained(str(run / name))
    assert_equal_weights(model, V2M.from_pretrained(str(musicgen.write_audiocraft(tmp_path / "exported"))))
    assert (model.origin, model.components["codec"].name) == ("0123abcd", "facebook/encodec_32khz")
    assert model.components["text_encoder"].name == "google-t5/t5-base"
    assert main([str(run / name), str(tmp_path / "ours")]) == OK
    assert_equal_weights(V2M.from_pretrained(str(tmp_path / "ours")), model)
    assert "hidden" not in (tmp_path / "ours/config.yaml").read_text()


def test_last_weights_of_a_vidmuse_run_are_read(tmp_path: Path) -> None:
    """As VidMuse's own export takes them."""
    folder = musicgen.write_vidmuse(tmp_path / "exported")
    state = torch.load(folder / "state_dict.bin", weights_only=True)["best_state"]
    settings = musicgen.vidmuse_config()
    changes = {"model": state, "best_state": {"model": dict.fromkeys(state, torch.zeros(1))}}
    run = musicgen.write_training(tmp_path, musicgen.audiocraft_model(settings), settings, changes)
    assert_equal_weights(V2M.from_pretrained(str(run)), V2M.from_pretrained(str(folder)))


def test_codec_trained_by_audiocraft_is_read(tmp_path: Path) -> None:
    settings = encodec.audiocraft_config() | {"transformer_lm": {"n_q": 4}}
    run = musicgen.write_training(tmp_path, encodec.audiocraft_model(settings), settings)
    exported = encodec.write_audiocraft_codec(tmp_path / "exported.bin")
    trained, published = (read_compression_file(path) for path in (run / "checkpoint.th", exported))
    assert not isinstance(trained, str)
    assert not isinstance(published, str)
    (config, state), (expected_config, expected) = trained, published
    assert config == expected_config
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_code_in_a_run_is_refused_with_the_line_that_exports_it(run: Path, tmp_path: Path) -> None:
    package = torch.load(run / "checkpoint.th", weights_only=False)
    torch.save(package | {"more": Code()}, run / "checkpoint.th")
    with pytest.raises(DependencyError) as refusal:
        V2M.from_pretrained(str(run))
    assert "holds code and is refused (nothing was run): it asks for posix.system" in str(refusal.value)
    assert "python -c 'from audiocraft.utils import export; export.export_lm(" in str(refusal.value)
    assert not Path("ran").exists()


def test_settings_that_contain_themselves_are_refused(run: Path) -> None:
    package = torch.load(run / "checkpoint.th", weights_only=False)
    package["xp.cfg"]._content["circle"] = package["xp.cfg"]
    torch.save(package, run / "checkpoint.th")
    with pytest.raises(DependencyError, match="contain themselves"):
        V2M.from_pretrained(str(run))


def test_codec_of_another_run_is_named(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    package = torch.load(run / "checkpoint.th", weights_only=False)
    package["xp.cfg"].compression_model_checkpoint = "//sig/4567cdef"
    torch.save(package, run / "checkpoint.th")
    assert "codec" not in V2M.from_pretrained(str(run)).components
    assert "needs its codec, //sig/4567cdef: export it as compression_state_dict.bin beside it" in caplog.text


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("xps", ENVIRONMENT, "holds training checkpoints: give one, "),
        ("xps/0123abcd/model.safetensors", ENVIRONMENT, "is a file: give the folder that holds it, "),
        ("xps/0123abcd/step.ckpt", None, "is a training checkpoint: write it as a model, `v2m convert "),
        ("xps/0123abcd/other.ckpt", USAGE, "there is no file "),
        ("xps/0123abcd/checkpoint_6.th", USAGE, "there is no file "),
        ("xps/4567", USAGE, "there is no folder "),
    ],
)
def test_path_is_called_what_it_is(  # noqa: PLR0917 - a row, and where it is tried
    run: Path, name: str, code: int | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("model.safetensors", "step.ckpt"):
        (run / file).touch()
    with pytest.raises(UsageError if code == USAGE else DependencyError, match=message):
        V2M.from_pretrained(str(tmp_path / name))
    if code is not None:  # else it is what `v2m convert` takes
        assert main([str(tmp_path / name), str(tmp_path / "ours")]) == code
        assert message in capsys.readouterr().err


def test_model_of_sound_effects_is_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = musicgen.write_audiocraft(tmp_path / "audiogen")
    package = torch.load(folder / "state_dict.bin", weights_only=True)
    torch.save(
        package | {"xp.cfg": package["xp.cfg"].replace("solver: musicgen", "solver: audiogen")},
        folder / "state_dict.bin",
    )
    V2M.from_pretrained(str(folder))
    assert "is AudioGen, a model of sound effects: what it writes is no music" in caplog.text


def test_run_of_our_own_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        (tmp_path / f"checkpoints/step{step}.ckpt").touch()
    (tmp_path / "config.yaml").write_text("seed: 1")
    with pytest.raises(DependencyError, match=r"holds training checkpoints: give one, .*step1.ckpt, .*step2.ckpt"):
        V2M.from_pretrained(str(tmp_path))
