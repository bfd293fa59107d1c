"""What is saved is read back bit for bit; what is published is read as its own library reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MusicgenForConditionalGeneration, MusicgenMelodyForConditionalGeneration

import v2m
from tests.conftest import names
from tests.fixtures.tiny import encodec, musicgen, t5
from tests.pretrained.hub_server import COMMIT, serving
from v2m.checkpoints import V2M, Component, load, save
from v2m.core.atomic import atomic_directory
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import CodecSpec
from v2m.models.conditioning import Condition
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig
from v2m.pretrained.weights import match_files, unmatched

ROOT = Path(__file__).parents[2]
CONFIG = MusicConfig(lm=LMConfig(dim=32, num_layers=2, num_heads=4, codebook_size=64, delays=(0, 1, 2, 4)), text_dim=16)


@pytest.fixture
def model(tmp_path: Path) -> V2M:
    """A tiny model of random weights, which carries a codec and names a text encoder."""
    torch.manual_seed(0)
    parts = {
        "codec": Component(folder=encodec.write(tmp_path / "source")),
        "text_encoder": Component("google-t5/t5-base"),
    }
    return V2M(CONFIG, components=parts, license="cc-by-nc-4.0", origin="owner/tiny@0123")


@torch.inference_mode()
def logits(model: V2M) -> Tensor:
    """Of some fixed codes and words."""
    lm = model.config.lm
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(lm.codebook_size + 1, (2, lm.num_codebooks, 9), generator=generator)
    words = torch.randn(2, 3, model.config.text_dim or 1, generator=generator)
    return model.eval().lm(codes, model.project_text(Condition.from_tokens(words)))


def test_saved_checkpoint_gives_bit_identical_logits(model: V2M, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved")
    read = v2m.V2M.from_pretrained(str(tmp_path / "saved"))
    assert torch.equal(logits(read), logits(model))
    assert (read.config, read.license, read.origin) == (CONFIG, "cc-by-nc-4.0", "owner/tiny@0123")
    assert read.sample_rate == 32000
    assert not read.training
    assert all(value.requires_grad for value in read.parameters())


def test_checkpoint_stores_carried_components_and_names_others(model: V2M, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved")
    assert names(tmp_path / "saved") == ["README.md", "codec", "config.yaml", "model.safetensors"]
    settings = yaml.safe_load((tmp_path / "saved/config.yaml").read_text())
    kinds = {kind: settings[kind] for kind in ("text_encoder", "codec", "vision_encoder")}
    assert kinds == {"text_encoder": "google-t5/t5-base", "codec": "codec", "vision_encoder": None}
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "saved/codec"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = (tmp_path / "saved/README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert "owner/tiny@0123" in card
    (weights,) = V2M.from_pretrained(str(tmp_path / "saved")).weights
    assert (weights.folder, weights.license) == (tmp_path / "saved", "cc-by-nc-4.0")


def test_named_component_is_fetched_on_first_use(model: V2M, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model.save_pretrained(tmp_path / "saved")
    read = V2M.from_pretrained(str(tmp_path / "saved"))
    home = t5.write(tmp_path / "google-t5" / "t5-base")
    assert read.component("text_encoder").folder == home
    assert read.component("codec").folder == tmp_path / "saved" / "codec"
    assert [each.name for each in read.weights] == [str(tmp_path / "saved"), "google-t5/t5-base"]
    with pytest.raises(DependencyError, match="names no vision encoder"):
        read.component("vision_encoder")


@pytest.mark.parametrize(
    ("stored", "asked", "given"),
    [
        (torch.float32, None, torch.float32),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, None, torch.float32),
        (torch.float32, torch.bfloat16, torch.bfloat16),
    ],
)
def test_dtype_is_kept_except_float16(
    model: V2M, tmp_path: Path, stored: torch.dtype, asked: torch.dtype | None, given: torch.dtype
) -> None:
    model.to(stored).save_pretrained(tmp_path / "saved")
    read = V2M.from_pretrained(str(tmp_path / "saved"), dtype=asked)
    assert {value.dtype for value in read.parameters()} == {given}
    assert torch.equal(read.lm.norm.weight, model.lm.norm.weight.to(given))


def test_save_replaces_v2m_checkpoint_only(model: V2M, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    model.save_pretrained(folder)
    read = V2M.from_pretrained(str(folder))
    expected = logits(read)
    read.save_pretrained(folder)
    assert torch.equal(logits(V2M.from_pretrained(str(folder))), expected)
    (folder / "thesis.txt").write_text("mine")
    before = names(folder)
    with pytest.raises(UsageError, match="holds something already"):
        read.save_pretrained(folder)
    assert names(folder) == before
    assert names(tmp_path) == ["saved", "source"], "nothing is left beside it"
    with pytest.raises(UsageError, match="is a file"):
        read.save_pretrained(folder / "thesis.txt")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UsageError, match=r"'\.' cannot be replaced: give a new folder"):
        read.save_pretrained(Path())


def test_failed_save_keeps_old_checkpoint(model: V2M, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    expected = logits(model)
    torch.nn.init.ones_(model.lm.norm.bias)
    os.truncate(tmp_path / "source/model.safetensors", 100)  # of the part that is written after the weights
    with pytest.raises(DependencyError, match="truncated"):
        model.save_pretrained(folder)
    with pytest.raises(FileNotFoundError):  # when the old one is out of the way already
        atomic_directory(folder, shutil.rmtree, may_replace=save.is_v2m_checkpoint)
    assert names(tmp_path) == ["saved", "source"]
    assert torch.equal(logits(V2M.from_pretrained(str(folder))), expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_codebooks": 8}, "8 codebooks instead of 4"),
        ({"codebook_size": 1024}, "1024 entries a codebook instead of 64"),
        ({"sample_rate": 24000}, "24000 Hz instead of 32000"),
    ],
)
def test_check_codec_reports_other_codec(model: V2M, change: dict[str, int], told: str) -> None:
    fitting = {"sample_rate": 32000, "frame_rate": 50, "num_codebooks": 4, "codebook_size": 64, "channels": 1}
    model.check_codec(CodecSpec(**fitting))
    with pytest.raises(DependencyError, match=told):
        model.check_codec(CodecSpec(**{**fitting, **change}))


CLIENT = """
from v2m import V2M
from v2m.core import errors
V2M.from_pretrained("owner/tiny")
model = V2M.from_pretrained("owner/tiny")
print(model.origin, model.weights[0].revision, model.weights[0].license, sorted(model.components))
print(model.push_to_hub("owner/new", private=True))
try:
    model.push_to_hub("owner/gated")
except errors.DependencyError as error:
    print(errors.format_error(error))
"""


def test_hub_download_takes_one_layout_and_upload_round_trips(tmp_path: Path) -> None:
    folder = musicgen.write_transformers(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = ("state_dict.bin", "compression_state_dict.bin", "pytorch_model.bin", "flax_model.msgpack")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "V2M_"))}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_not_a_real_one"}
    with serving(files | dict.fromkeys(others, b"not asked for")) as hub:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT], cwd=ROOT, env={**environment, "HF_ENDPOINT": hub.url},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    about, address, refusal = done.stdout.splitlines()
    assert about == f"owner/tiny@{COMMIT} {COMMIT} cc-by-nc-4.0 ['codec', 'text_encoder']"
    assert sorted(name for name, _ in hub.transfers() if name in files | dict.fromkeys(others)) == sorted(files)
    assert (address, hub.private) == (f"{hub.url}/owner/new", True)
    assert refusal.startswith("'owner/gated' cannot be uploaded to: ")
    assert "answered 403" in refusal
    for name, data in hub.uploaded.items():
        path = tmp_path / "again" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    again = V2M.from_pretrained(str(tmp_path / "again"))
    assert torch.equal(logits(again), logits(V2M.from_pretrained(str(folder))))
    assert again.origin == f"owner/tiny@{COMMIT}"
    assert set(hub.uploaded) >= {"README.md", "text_encoder/spiece.model", "codec/model.safetensors"}


@torch.inference_mode()
@pytest.mark.parametrize("variant", [{}, {"stereo": True}, {"melody": True}])
def test_transformers_model_gives_the_same_logits(tmp_path: Path, variant: dict[str, bool]) -> None:
    folder = musicgen.write_transformers(tmp_path / "published", **variant)
    ours, theirs = V2M.from_pretrained(str(folder)), published(folder)
    codes = torch.randint(musicgen.CODEBOOK_SIZE, (2, ours.config.lm.num_codebooks, 9))
    words = torch.randn(2, 3, musicgen.TEXT_DIM)
    expected = theirs.decoder(codes.flatten(0, 1), encoder_hidden_states=theirs.enc_to_dec_proj(words)).logits
    given = ours.lm(codes, ours.project_text(Condition.from_tokens(words))).flatten(0, 1)
    assert (given - expected[..., -9:, :]).abs().max() < 1e-5
    config, state = ours.component("codec").load()
    sounds = encodec.old_weight_norm_keys(theirs.audio_encoder.state_dict())  # weight norm under its older names
    assert config["sampling_rate"] == ours.sample_rate == 32000
    assert all(torch.equal(state[name], value) for name, value in sounds.items())


@torch.inference_mode()
def test_transformers_decoder_alone_has_no_text_condition(tmp_path: Path) -> None:
    theirs: Any = published(musicgen.write_transformers(tmp_path / "published")).decoder
    theirs.save_pretrained(tmp_path / "alone")
    ours = V2M.from_pretrained(str(tmp_path / "alone"))
    codes = torch.randint(musicgen.CODEBOOK_SIZE, (2, ours.config.lm.num_codebooks, 9))
    assert (ours.lm(codes).flatten(0, 1) - theirs(codes.flatten(0, 1)).logits).abs().max() < 1e-5
    assert ours.config.text_dim is None
    with pytest.raises(DependencyError, match="names no codec"):
        ours.component("codec")


def published(folder: Path) -> Any:
    """transformers' own reading of a folder."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    melody, plain = MusicgenMelodyForConditionalGeneration, MusicgenForConditionalGeneration
    model: Any = melody if kind == "musicgen_melody" else plain
    return model.from_pretrained(folder).eval()


TOKENS = ["spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
PAIR = ["compression_state_dict.bin", "state_dict.bin"]
JSONS = ["config.json", "generation_config.json", "preprocessor_config.json"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
PICKLES = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]
OURS = ["config.yaml", "model.safetensors", "text_encoder/model.safetensors", "codec/config.json"]


@pytest.mark.parametrize(
    ("needed", "more"),
    [
        ([*JSONS, *TOKENS, "model.safetensors"], [*PAIR, "pytorch_model.bin"]),
        ([*JSONS, *TOKENS, *SHARDS], [*PAIR, *PICKLES[:2]]),
        ([*JSONS, *TOKENS, *PICKLES], PAIR),
        (PAIR, ["audio.wav"]),
        (OURS, ["state_dict.bin", "events.log", "pytorch_model.bin"]),
    ],
)
def test_required_files_match_one_layout_completely(needed: list[str], more: list[str]) -> None:
    assert sorted(match_files([*needed, *more], load.REQUIRED_FILES)) == sorted(needed)
    assert unmatched(needed, load.REQUIRED_FILES) == []


def test_sharded_weights_equal_single_file(tmp_path: Path) -> None:
    folder = musicgen.write_transformers(tmp_path / "whole")
    shards = Path(shutil.copytree(folder, tmp_path / "shards"))
    state = load_file(folder / "model.safetensors")
    (shards / "model.safetensors").unlink()
    homes = {name: SHARDS[number % 2] for number, name in enumerate(state)}
    for shard in SHARDS[:2]:
        save_file({name: value for name, value in state.items() if homes[name] == shard}, shards / shard)
    (shards / SHARDS[2]).write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    assert torch.equal(*(logits(V2M.from_pretrained(str(each))) for each in (folder, shards)))
