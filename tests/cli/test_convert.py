"""`v2m convert`: round trips without loss, and output that the original libraries load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import names
from tests.fixtures.tiny import musicgen, musicgen_style, t5
from v2m.cli.convert import main
from v2m.core.errors import ENVIRONMENT, OK, USAGE

ROOT = Path(__file__).parents[2]
SOURCES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "transformers": ("transformers", musicgen.write_transformers),
    "stereo": ("transformers", lambda folder: musicgen.write_transformers(folder, stereo=True)),
    "melody": ("transformers", lambda folder: musicgen.write_transformers(folder, melody=True)),
    "audiocraft": ("audiocraft", lambda folder: musicgen.write_audiocraft(folder, with_codec=True)),
    "audiocraft, melody": ("audiocraft", lambda folder: musicgen.write_audiocraft(folder, melody=True)),
    "audiocraft, style": ("audiocraft", musicgen_style.write),
    "vidmuse": ("vidmuse", musicgen.write_vidmuse),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network; T5 and EnCodec are in a local folder under their hub names."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "checkpoints"))


def contents(folder: Path) -> dict[str, Tensor]:
    """All weights in a folder, by file and name."""
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            weights |= {f"{path.name}: {name}": value for name, value in load_file(path).items()}
        elif path.suffix == ".bin":
            package = torch.load(path, weights_only=True)
            weights |= {f"{path.name}: {name}": value for name, value in package.get("best_state", {}).items()}
    return weights


@pytest.mark.parametrize("name", SOURCES)
def test_round_trip_keeps_every_weight_bit_identical(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, make = SOURCES[name]
    source = make(tmp_path / "source")
    assert main([str(source), str(tmp_path / "ours")]) == OK
    assert main([str(tmp_path / "ours"), str(tmp_path / "back"), "--to", layout]) == OK
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith(f"wrote {tmp_path / 'ours'} in the layout of v2m: ")
    assert output[1].startswith(f"wrote {tmp_path / 'back'} in the layout of {layout}: ")
    before, after = contents(source), contents(tmp_path / "back")
    assert set(before) == set(after)
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert set(names(tmp_path / "back")) >= set(names(source))


def test_audiocraft_to_transformers_includes_the_encoders(tmp_path: Path) -> None:
    """transformers' own class reads it, and gives the logits of audiocraft's own model."""
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration

    t5.write(tmp_path / "checkpoints" / "t5-base")
    source = musicgen.write_audiocraft(tmp_path / "source", with_codec=True)
    assert main([str(source), str(tmp_path / "dest"), "--to", "transformers"]) == OK
    kind: Any = MusicgenForConditionalGeneration
    theirs, loading_info = kind.from_pretrained(tmp_path / "dest", output_loading_info=True)
    assert not any(loading_info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert AutoTokenizer.from_pretrained(tmp_path / "dest")("calm piano").input_ids[-1] == 1
    lm = musicgen.audiocraft_model(musicgen.audiocraft_config())
    codes, memory = torch.randint(musicgen.CODEBOOK_SIZE, (2, 4, 9)), torch.randn(2, 3, musicgen.DIM)
    with torch.inference_mode():
        expected = lm(codes, [], condition_tensors={"description": (memory, torch.ones(2, 3))})
        given = theirs.eval().decoder(codes.flatten(0, 1), encoder_hidden_states=memory).logits
    assert (given - expected.flatten(0, 1)).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # audiocraft's
@pytest.mark.parametrize("variant", [{}, {"stereo": True}])
def test_transformers_to_audiocraft_loads_in_audiocraft(tmp_path: Path, variant: dict[str, bool]) -> None:
    """Except T5, which audiocraft downloads by name when it builds the text conditioner."""
    import omegaconf
    from audiocraft.models import builders, loaders

    source = musicgen.write_transformers(tmp_path / "source", **variant)
    assert main([str(source), str(tmp_path / "dest"), "--to", "audiocraft"]) == OK
    codec: Any = loaders.load_compression_model(str(tmp_path / "dest"), device="cpu")
    assert (codec.sample_rate, codec.frame_rate, codec.cardinality, codec.num_codebooks) == (32000, 50, 64, 4)
    package: Any = loaders.load_lm_model_ckpt(str(tmp_path / "dest"))
    cfg: Any = omegaconf.OmegaConf.create(package["xp.cfg"])
    assert cfg.conditioners.description.t5.name == "t5-base"
    cfg.conditioners = {}
    lm: Any = builders.get_lm_model(cfg)
    incompatible = lm.load_state_dict(package["best_state"], strict=False)
    projection = "condition_provider.conditioners.description.output_proj"
    assert (incompatible.missing_keys, incompatible.unexpected_keys) == (
        [],
        [f"{projection}.weight", f"{projection}.bias"],
    )
    assert (lm.num_codebooks, lm.card) == (8 if variant else 4, musicgen.CODEBOOK_SIZE)


def test_config_of_a_converted_checkpoint_has_origin_and_license(tmp_path: Path) -> None:
    source = musicgen.write_transformers(tmp_path / "musicgen-tiny")
    assert main([str(source), str(tmp_path / "ours")]) == OK
    settings = yaml.safe_load((tmp_path / "ours/config.yaml").read_text())
    assert (settings["origin"], settings["license"]) == ("musicgen-tiny", "cc-by-nc-4.0")
    assert names(tmp_path / "ours") == ["README.md", "codec", "config.yaml", "model.safetensors", "text_encoder"]
    assert {"spiece.model", "tokenizer.json"} <= set(names(tmp_path / "ours/text_encoder"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{source}", "{full}"], USAGE, "exists already: give a new folder"),
        (["{source}", "{file}"], USAGE, "exists already: give a new folder"),
        (["{source}", "{new}", "--to", "vidmuse"], USAGE, "has no visual conditioner"),
        (["{source}", "{new}", "--to", "onnx"], USAGE, "onnx"),
        (
            ["{style}", "{new}", "--to", "transformers"],
            USAGE,
            "a style conditioner, which transformers' MusicGen lacks",
        ),
        (["{source}"], USAGE, "dest"),
        (["{new}", "{new}"], USAGE, "there is no folder"),
        (["{full}", "{new}"], ENVIRONMENT, "lacks config.yaml|config.json|state_dict.bin"),
    ],
)
def test_invalid_command_gives_one_line_and_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    source = musicgen.write_transformers(tmp_path / "source")
    style = musicgen_style.write(tmp_path / "style") if "{style}" in words else None
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    before = names(tmp_path)
    capsys.readouterr()
    places = {
        "source": source,
        "style": style,
        "full": tmp_path / "full",
        "file": tmp_path / "full/file",
        "new": tmp_path / "new",
    }
    assert main([word.format(**places) for word in words]) == code
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith("v2m convert: ")
    assert message in output.err
    assert names(tmp_path) == before


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys; from v2m.cli.convert import main; code = main(['--help'])\n"
        "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "{v2m,transformers,audiocraft,vidmuse}" in done.stdout
