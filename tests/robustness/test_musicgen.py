"""User errors with the recipe musicgen: one line, the right exit code, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import names
from tests.fixtures.tiny import encodec, yue_lm
from tests.fixtures.tiny import musicgen as tiny
from v2m.checkpoints import V2M
from v2m.cli.score import main


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_transformers(tmp_path_factory.mktemp("model") / "model")


def another_family(folder: Path, model: Path) -> None:
    yue_lm.write(folder, 128, hidden=16, layers=1, heads=2, kv_heads=1, ffn=32)


def a_codec(folder: Path, model: Path) -> None:
    encodec.write(folder)


def other_codec(folder: Path, model: Path) -> None:
    """Our own layout, with a codec of more entries than the model writes."""
    V2M.from_pretrained(str(model)).save_pretrained(folder)
    shutil.rmtree(folder / "codec")
    encodec.write(folder / "codec", codebook_size=128)


def not_a_number(folder: Path, model: Path) -> None:
    shutil.copytree(model, folder)
    state = load_file(folder / "model.safetensors")
    next(value for name, value in state.items() if "fc1" in name)[0, 0] = torch.nan
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def code(folder: Path, model: Path) -> None:
    folder.mkdir()
    torch.save({"best_state": {}, "xp.cfg": Bomb(folder / "run")}, folder / "state_dict.bin")


def no_tokenizer(folder: Path, model: Path) -> None:
    shutil.copytree(model, folder)
    for name in ("tokenizer.json", "spiece.model"):
        (folder / name).unlink(missing_ok=True)


def no_codec(folder: Path, model: Path) -> None:
    V2M.from_pretrained(str(model)).save_pretrained(folder)
    shutil.rmtree(folder / "codec")


def truncated(folder: Path, model: Path) -> None:
    shutil.copytree(model, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def sees(folder: Path, model: Path) -> None:
    tiny.write_vidmuse(folder)


def another_size(folder: Path, model: Path) -> None:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (another_family, (4, "llama")),
        (a_codec, (4, "encodec")),
        (other_codec, (4, "128 entries a codebook instead of 64")),
        (not_a_number, (4, "fc1|expand")),
        (code, (4, "holds code and is refused")),
        (no_tokenizer, (4, "holds no tokenizer of T5")),
        (no_codec, (4, "lacks codec/config.json")),
        (truncated, (4, "is truncated or no safetensors file")),
        (sees, (2, "needs video, which this generator does not give it")),
        (another_size, (4, "layers")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_broken_checkpoint_is_one_line(
    clip: Path, model: Path, capsys: pytest.CaptureFixture[str], spoil: object, told: tuple[int, str]
) -> None:
    assert callable(spoil)
    folder = clip.parent / "spoilt"
    spoil(folder, model)
    found = main([str(clip), "--recipe", "musicgen", "--generator.model", str(folder)])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("infer.py: ")]
    assert (found, len(said)) == (told[0], 1), said
    assert any(word in said[0] for word in told[1].split("|")), said
    assert not (folder / "run").exists()
    assert names(clip.parent) == ["cuts.mp4", "spoilt"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--melody", "gone.wav"], (2, "melody 'gone.wav': no such file")),
        (["--melody", "README.md"], (2, "'README.md' cannot be read as sound")),
        (["--melody", "data/examples/bunny_wakes.mp4"], (2, "follows no melody: give facebook/musicgen-melody")),
        (["--reference", "README.md"], (2, "follows no style: give facebook/musicgen-style")),
        (["--stems"], (2, "cannot do --stems; it can do --melody")),
        (["--generator.window", "40"], (2, "window 40 s is longer than the 30 s")),
        (["--generator.stride", "30"], (2, "stride 30 s must lie between 0.5 and 29.5")),
        (["--generator.precision", "int3"], (2, "int3")),
        (["--generator.sampling.top_p", "0"], (2, "top_p 0 must lie above 0")),
        (["--generator.sampling.video_cfg_scale", "2"], (2, "video_cfg_scale has no effect")),
        (["--generator.device", "tpu"], (2, "device 'tpu' is none of this machine's")),
        (["--generator.model", "no/such/folder/at/all"], (2, "there is no folder 'no/such/folder/at/all'")),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_wrong_flag_is_one_line(
    clip: Path, model: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: tuple[int, str]
) -> None:
    root = Path(__file__).parents[2]
    flags = [str(root / word) if (root / word).is_file() else word for word in flags]
    found = main([str(clip), "--recipe", "musicgen", "--generator.model", str(model), *flags])
    said = capsys.readouterr().err.splitlines()
    assert (found, len(said)) == (told[0], 1), said
    assert told[1].replace("'README.md'", f"'{root / 'README.md'}'") in said[0]
    assert names(clip.parent) == ["cuts.mp4"]


def test_default_recipe_refuses_a_melody(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(clip), "--melody", str(clip)]) == 2
    assert "the generator Sketch cannot do --melody" in capsys.readouterr().err
