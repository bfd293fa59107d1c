"""Checkpoints that are broken, hostile or of something else: one line that names the problem, and nothing is run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.fixtures.tiny import encodec, musicgen, yue_lm
from v2m.checkpoints import V2M
from v2m.core.errors import DependencyError, format_error

EMBEDDING = "decoder.model.decoder.embed_tokens.0.weight"
LAYOUTS = ("ours", "transformers", "audiocraft")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A good checkpoint in each layout."""
    folder = tmp_path_factory.mktemp("whole")
    musicgen.write_transformers(folder / "transformers")
    musicgen.write_audiocraft(folder / "audiocraft", with_codec=True)
    V2M.from_pretrained(str(folder / "transformers")).save_pretrained(folder / "ours")
    yield folder
    for name in LAYOUTS:
        V2M.from_pretrained(str(folder / name))


class Hostile:
    """Its unpickling creates the file `ran` beside the tests."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(Path(__file__).parent / 'ran')!r}, 'w').close()",)


def weights(**change: Any) -> Callable[[Path], None]:
    """Changes tensors of model.safetensors; None takes one out. "__" stands for "."."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        state = load_file(path) | {name.replace("__", "."): value for name, value in change.items()}
        state = {name: value for name, value in state.items() if value is not None}
        save_file({name: value.clone() for name, value in state.items()}, path, {"format": "pt"})

    return spoil


def settings(**change: Any) -> Callable[[Path], None]:
    """Changes settings of config.yaml or config.json."""

    def spoil(folder: Path) -> None:
        path = next(each for each in (folder / "config.yaml", folder / "config.json") if each.is_file())
        read, write = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
        path.write_text(write(read(path.read_text()) | change))

    return spoil


def file(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Puts something else in a file's place, or takes it away."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)

    return spoil


def truncated(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def package(change: dict[str, Any]) -> Callable[[Path], None]:
    """Changes what audiocraft's file holds."""

    def spoil(folder: Path) -> None:
        found = torch.load(folder / "state_dict.bin", weights_only=True) | change
        torch.save({key: value for key, value in found.items() if value is not None}, folder / "state_dict.bin")

    return spoil


def magnet(folder: Path) -> None:
    cfg = musicgen.audiocraft_config() | {"lm_model": "transformer_lm_magnet"}
    package({"xp.cfg": yaml.safe_dump(cfg)})(folder)


def codec_for_model(folder: Path) -> None:
    shutil.copy(folder / "compression_state_dict.bin", folder / "state_dict.bin")


def not_finite(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["lm.norm.bias"] = torch.full_like(state["lm.norm.bias"], float("nan"))
    save_file(state, folder / "model.safetensors")


NORM = torch.ones(musicgen.DIM)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a name is missing": ("ours", weights(lm__norm__weight=None), "1 missing: lm.norm.weight"),
    "a name is unknown": ("ours", weights(lm__strange=NORM), "1 unknown: lm.strange"),
    "another shape": ("ours", weights(lm__norm__bias=NORM[:5]), r"lm.norm.bias (5,) instead of (32,)"),
    "infinite": ("ours", weights(lm__norm__bias=NORM / 0), "infinite or no numbers: lm.norm.bias"),
    "not a number": ("ours", not_finite, "infinite or no numbers: lm.norm.bias"),
    "truncated": ("ours", truncated("model.safetensors"), "model.safetensors' is truncated"),
    "empty": ("ours", file("model.safetensors", b""), "is empty: download it again"),
    "a pointer": ("ours", file("model.safetensors", LFS), "is a Git LFS pointer"),
    "no weights": (
        "ours",
        file("model.safetensors", None),
        "lacks model*.safetensors|pytorch_model*.bin|state_dict.bin",
    ),
    "a later format": ("ours", settings(format=2), "has format 2, and this version of v2m reads 1"),
    "no model": ("ours", settings(model=None), "describes no model"),
    "an unknown setting": ("ours", settings(model={"lm": {"wide": 3}}), "a model that cannot be"),
    "an impossible size": (
        "ours",
        settings(model={"lm": {"num_heads": 5}}),
        "must be even and a multiple of the 5 heads",
    ),
    "another size": ("ours", settings(model={"lm": {"dim": 64}}), "these are not the weights of the music model"),
    "a rate that is none": ("ours", settings(sample_rate="fast"), "sample_rate 'fast', not a number of Hz"),
    "a part that is no name": ("ours", settings(codec=3), "codec 3, which is no name"),
    "a part that is not there": ("ours", lambda f: shutil.rmtree(f / "codec"), "lacks codec/config.json"),
    "settings that are no YAML": ("ours", file("config.yaml", b"a: [\xff"), "config.yaml' is not YAML"),
    "settings that are a list": ("ours", file("config.yaml", b"- 1"), "config.yaml' holds no settings"),
    "a Llama": ("transformers", settings(model_type="llama"), "model_type 'llama', which is no MusicGen"),
    "a codec": ("transformers", encodec.write, "model_type 'encodec', which is no MusicGen"),
    "half a composite": ("transformers", settings(audio_encoder=None), "lacks audio_encoder"),
    "their name is missing": ("transformers", weights(enc_to_dec_proj__bias=None), "1 missing: text.bias"),
    "their name is unknown": ("transformers", weights(decoder__strange=NORM), "strange"),
    "their size is another": (
        "transformers",
        weights(**{EMBEDDING.replace(".", "__"): torch.ones(9, 32)}),
        "codebook_size",
    ),
    "their JSON is none": ("transformers", file("config.json", b"{"), "config.json' is not JSON"),
    "a MAGNeT": ("audiocraft", magnet, "MAGNeT: give it to the recipe magnet"),
    "a codec in its place": ("audiocraft", codec_for_model, "lm_model"),
    "code": (
        "audiocraft",
        package({"more": Hostile()}),
        "holds code and is refused (nothing was run): it asks for exec",
    ),
    "their file is truncated": ("audiocraft", truncated("state_dict.bin"), "state_dict.bin' is truncated"),
    "no state in it": ("audiocraft", package({"best_state": None}), "no best_state"),
    "no settings in it": ("audiocraft", package({"xp.cfg": None}), "no xp.cfg"),
    "settings in it are no YAML": ("audiocraft", package({"xp.cfg": "a: ["}), "settings that are not YAML"),
}


@pytest.mark.parametrize("case", CASES)
def test_broken_checkpoint_is_one_line_with_the_folder(whole: Path, tmp_path: Path, case: str) -> None:
    layout, spoil, told = CASES[case]
    folder = Path(shutil.copytree(whole / layout, tmp_path / "spoilt"))
    spoil(folder)
    with pytest.raises(DependencyError) as caught:
        V2M.from_pretrained(str(folder))
    line = format_error(caught.value)
    assert told in line
    assert str(folder) in line
    assert "\n" not in str(caught.value)
    assert not (Path(__file__).parent / "ran").exists()


def test_llama_checkpoint_is_refused_as_music_model(tmp_path: Path) -> None:
    yue_lm.write(tmp_path, vocab=64)
    with pytest.raises(DependencyError, match="model_type 'llama', which is no MusicGen"):
        V2M.from_pretrained(str(tmp_path))
