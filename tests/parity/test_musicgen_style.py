"""MusicGen-Style gives what audiocraft's main branch gives, by numbers that `tests.reference.musicgen_style` wrote.

The excerpts are those that its `main` takes: from sample 1600 of `tiny.recording()` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fixtures.tiny import musicgen as plain
from tests.fixtures.tiny import musicgen_style as tiny
from v2m.checkpoints import V2M
from v2m.core.types import Audio, SamplingConfig
from v2m.generators.style_encoder import StyleEncoder
from v2m.mappings import audiocraft
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference import windows
from v2m.models.inference.decoder import Decoder
from v2m.models.style_conditioner import StyleConditioner, StyleConfig
from v2m.pretrained.mert import Mert, resample

START = 1600
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(tiny.GOLDEN.with_suffix(".npz")) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


@contextmanager
def checkpoints(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("V2M_CHECKPOINTS", str(folder))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> V2M:
    folder = tmp_path_factory.mktemp("style")
    tiny.write_mert(folder / "named" / "MERT-v1-95M")
    with checkpoints(folder / "named"):
        loaded = V2M.from_pretrained(str(tiny.write(folder / "model")))
        loaded.component("style_encoder")
    return loaded


@pytest.fixture(scope="module")
def encoder(model: V2M) -> StyleEncoder:
    assert model.style is not None
    return StyleEncoder.load(model, model.style, CPU)


def excerpt(seconds: float, recording_s: float = 4.6) -> Audio:
    wave = tiny.recording(recording_s)[START : START + int(seconds * tiny.RATE)]
    return Audio(np.stack([wave, wave]), tiny.RATE)


def test_mert_features_equal_the_published_code(model: V2M, golden: dict[str, Any]) -> None:
    folder = model.component("style_encoder").folder
    assert folder is not None
    wave = torch.from_numpy(excerpt(1.5).samples[:1])
    features = Mert.load(folder, CPU).encode(wave, 24_000)  # as it is, without resampling
    torch.testing.assert_close(features[0, ::9, ::8], golden["mert features"], atol=1e-5, rtol=1e-5)


def test_resampling_keeps_the_duration_and_the_level_to_the_ends() -> None:
    assert resample(torch.ones(1, 74_665), 32_000, 24_000).shape == (1, 55_998)
    torch.testing.assert_close(resample(torch.ones(1, 4000), 32_000, 24_000), torch.ones(1, 3000), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("seconds", "eval_q"), [(1.5, 1), (3.0, 3), (4.5, 6)])
def test_style_of_mert_equals_audiocraft(
    encoder: StyleEncoder, golden: dict[str, Any], seconds: float, eval_q: int
) -> None:
    condition = encoder.encode(excerpt(seconds), eval_q)
    assert condition.mask.all()
    torch.testing.assert_close(condition.tokens[0], golden[f"mert {seconds} {eval_q}"], atol=1e-4, rtol=1e-4)


def test_default_number_of_codebooks_is_the_checkpoints(encoder: StyleEncoder, golden: dict[str, Any]) -> None:
    default = encoder.encode(excerpt(3.0), None).tokens[0]
    torch.testing.assert_close(default, golden["mert 3.0 3"], atol=1e-4, rtol=1e-4)


def test_style_of_encodec_equals_audiocraft(golden: dict[str, Any], tmp_path: Path) -> None:
    style = V2M.from_pretrained(str(tiny.write(tmp_path / "model", encoder="encodec"))).style
    assert isinstance(style, StyleConditioner)
    codes = golden["encodec codes"].long()[None]  # of 4.5 s
    with torch.inference_mode():
        tokens = style(codes, 6)[0]
    torch.testing.assert_close(tokens, golden["encodec 4.5 6"], atol=1e-4, rtol=1e-4)


def branches(
    model: V2M, golden: dict[str, Any], text: bool, style: Condition | None, beta: float | None
) -> list[CFGBranch]:
    states = golden["text states"]
    condition = model.project_text(Condition.from_tokens(states)) if text else None
    sampling = SamplingConfig(temperature=0.0, cfg_beta=beta)
    return model.cfg_branches(sampling, text=condition, style=style or model.null_style())


@torch.inference_mode()
def test_logits_of_each_branch_equal_audiocraft(model: V2M, encoder: StyleEncoder, golden: dict[str, Any]) -> None:
    style = encoder.encode(excerpt(1.5, 1.6), 2)
    parts = branches(model, golden, True, style, 5.0)
    assert [part.weight for part in parts] == [-2.0, -12.0, 15.0]  # nothing, style, text and style
    for part, wanted in zip(parts, golden["logits"].flip(0), strict=True):
        ours = model.lm(golden["codes"].long(), part.condition)[0]
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "way"),  # text, style, beta
    [
        ("both 5", (True, True, 5.0)),
        ("both", (True, True, None)),
        ("style", (False, True, None)),
        ("text", (True, False, None)),
    ],
)
def test_greedy_codes_over_windows_equal_audiocraft(
    model: V2M, encoder: StyleEncoder, golden: dict[str, Any], name: str, way: tuple[bool, bool, float | None]
) -> None:
    text, styled, beta = way
    style = encoder.encode(excerpt(1.5, 1.6), 2) if styled else None

    def conditions(start: int, end: int) -> list[CFGBranch]:
        return branches(model, golden, text, style, beta)

    with torch.inference_mode():
        decoder = Decoder(model.lm, precision="fp32")
        codes = windows.generate_long(
            decoder,
            180,
            window=100,
            stride=80,
            branches=conditions,
            sampling=SamplingConfig(temperature=0.0),
            seeds=[0],
        )
    np.testing.assert_array_equal(codes[0].numpy(), golden[name].numpy())


def test_the_four_ways_to_condition_differ(golden: dict[str, Any]) -> None:
    ways = [golden[name] for name in ("both 5", "both", "style", "text")]
    assert not any(torch.equal(one, other) for n, one in enumerate(ways) for other in ways[:n])


@pytest.mark.parametrize("encoder_name", ["mert", "encodec"])
def test_every_weight_goes_to_v2m_and_back(encoder_name: str) -> None:
    settings = plain.audiocraft_config(style=encoder_name)
    state = tiny.random_state(tiny.shapes(f"style {encoder_name}"))
    config = audiocraft.config_to_v2m(settings, state)
    back = audiocraft.from_v2m(audiocraft.to_v2m(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    exported = audiocraft.config_from_v2m(config, sample_rate=tiny.RATE)
    assert exported["conditioners"]["self_wav"] == settings["conditioners"]["self_wav"]
    assert exported["fuser"] == settings["fuser"]
    assert audiocraft.config_to_v2m(exported, state) == config


def test_published_sizes_are_the_defaults() -> None:
    """Those of the published settings, for the 1536 of the medium size."""
    prefix = "condition_provider.conditioners.self_wav."
    shapes = {f"{prefix}{name}": shape for name, shape in tiny.shapes("published style").items()}
    with torch.device("meta"):
        ours = StyleConditioner(StyleConfig(), 1536).state_dict()
        theirs: dict[str, Tensor] = {name: torch.empty(shape) for name, shape in shapes.items()}
    renamed = audiocraft.to_v2m(theirs)
    assert {name: value.shape for name, value in renamed.items()} == {
        f"style.{name}": value.shape for name, value in ours.items()
    }
