"""MAGNeT writes what audiocraft's own MAGNeT writes with the same seed, on checkpoints that audiocraft reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fixtures.tiny import musicgen as tiny
from tests.fixtures.tiny import t5
from tests.sketch.stub_videos import video
from v2m.core.prompts import build_prompt
from v2m.core.types import Tags
from v2m.generators.magnet import Magnet
from v2m.generators.options import MagnetSampling
from v2m.models.inference.windows import window_seed
from v2m.pretrained import audiocraft
from v2m.pretrained.text import T5TextEncoder

TAGS = Tags(genres=["ambient"], instruments=["piano", "strings"], tempo=72)
SAMPLING = MagnetSampling(decoding_steps=(5, 3, 2, 2))
SEED = 4


def attention(query: Any, key: Any, value: Any, attn_bias: Any = None, p: float = 0.0) -> torch.Tensor:
    """What `xformers.ops.memory_efficient_attention` computes; its kernels run on no CPU."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias).transpose(1, 2)


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5.write(tmp_path_factory.mktemp("text") / "t5")


def audiocraft_magnet(folder: Path, text_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """audiocraft's own, from the same folder; it knows T5 by the names of the published sizes."""
    from audiocraft.models.magnet import MAGNeT
    from audiocraft.modules import transformer
    from audiocraft.modules.conditioners import T5Conditioner
    from xformers import ops

    monkeypatch.setattr(T5Conditioner, "MODELS", [str(text_encoder)])
    monkeypatch.setattr(T5Conditioner, "MODELS_DIMS", {str(text_encoder): tiny.TEXT_DIM})
    monkeypatch.setattr(transformer, "_efficient_attention_backend", "torch")  # which loading changes for all models
    monkeypatch.setattr(ops, "memory_efficient_attention", attention)
    model = MAGNeT.get_pretrained(str(folder), device="cpu")
    model.set_generation_params(decoding_steps=list(SAMPLING.decoding_steps))
    return model


# the attention of xformers as published, in the length of the 10 s models (no multiple of 8, or of the spans);
# audiocraft's explicit one takes masks of whole multiples of 8 only
@pytest.mark.parametrize(
    "kind",
    [{"seconds": 2, "span_len": 3, "memory_efficient": True}, {"seconds": 4, "span_len": 2, "memory_efficient": False}],
    ids=["xformers", "explicit"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # audiocraft's
def test_generated_audio_equals_audiocraft(
    tmp_path: Path, text_encoder: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    folder = tiny.write_magnet(tmp_path / "model", tiny.magnet_config(**kind, t5=str(text_encoder)))
    model = audiocraft_magnet(folder, text_encoder, monkeypatch)
    torch.manual_seed(SEED)
    expected, codes = model.generate([build_prompt(TAGS)], return_tokens=True)
    expected = expected[0].detach().numpy()
    generator = Magnet(model=str(folder), device="cpu", sampling=SAMPLING, keep_loaded=True)
    frames = kind["seconds"] * 50 // kind["span_len"] * kind["span_len"]
    actual = generator.generate(video(frames / 50), TAGS, SEED).audio.samples
    assert actual.shape == expected.shape
    assert len(codes.unique()) > 20, "the codes vary, so that being equal says something"
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    before = torch.get_rng_state()
    short = generator.generate(video(0.7), TAGS, SEED).audio.samples
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers are left alone"
    close = round(0.6 * 32000)  # the codec looks a few frames ahead
    np.testing.assert_allclose(short[:, :close], expected[:, :close], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_long_video_continues_each_window_as_audiocraft_does(
    tmp_path: Path, text_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 2 s, 1.2 s apart; each is prompted with the codes that are there."""
    folder = tiny.write_magnet(tmp_path / "model", tiny.magnet_config(t5=str(text_encoder)))
    model = audiocraft_magnet(folder, text_encoder, monkeypatch)
    attributes, _ = model._prepare_tokens_and_attributes([build_prompt(TAGS)], None)
    soundtrack = Magnet(model=str(folder), device="cpu", sampling=SAMPLING).generate(video(4.0), TAGS, SEED)
    assert soundtrack.metadata["windows"] == [[0.0, 1.98], [1.2, 3.18], [2.02, 4.0]]
    codes = torch.zeros(1, 4, 0, dtype=torch.long)
    for index, start in enumerate((0, 60, 101)):
        torch.manual_seed(window_seed(SEED, index) if index else SEED)
        window = model._generate_tokens(attributes, codes[..., start:] if index else None)
        assert torch.equal(window[..., : codes.shape[-1] - start], codes[..., start:])
        codes = torch.cat([codes, window[..., codes.shape[-1] - start :]], dim=-1)
    assert codes.shape[-1] == 200
    expected = model.generate_audio(codes)[0].detach().numpy()
    np.testing.assert_allclose(soundtrack.audio.samples, expected, atol=1e-5)


def test_text_is_encoded_in_float32_inside_autocast(text_encoder: Path) -> None:
    """On CUDA the network computes in float16, in which T5 overflows."""
    encoder = T5TextEncoder.load(text_encoder, torch.device("cpu"))
    conditioner = audiocraft._text_conditioner(encoder, 8)
    conditioner.output_proj = torch.nn.Identity()
    conditioner.output_proj.weight = torch.zeros(1)
    with torch.autocast("cpu", torch.bfloat16):
        tokens, mask = conditioner(conditioner.tokenize(["calm piano", None]))
    assert torch.equal(tokens, encoder.encode(["calm piano", ""]).tokens)
    assert mask.any(dim=1).tolist() == [True, False]
