"""VidMuse written out from its published layout, over the published names, against ours through the converter.

B batch, F frames, P tokens a frame, W width of a frame's tokens, H heads, S tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.fixtures.tiny import musicgen as tiny
from v2m.mappings import vidmuse
from v2m.models import patterns
from v2m.models.conditioning import Condition
from v2m.models.music_model import MusicConfig, MusicModel
from v2m.models.visual_conditioner import VisualInputs

State = dict[str, Tensor]


def normed(state: State, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def lined(state: State, name: str, x: Tensor) -> Tensor:
    return linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """(B, S, W) each, head by head."""
    out = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        out.append(scores.softmax(-1) @ v)
    return torch.cat(out, -1)


def frames_read(state: State, side: str, frames: Tensor, heads: int) -> Tensor:
    """(B, F, P, W) → (B, F · P, W)."""
    rows = []
    for clip in frames:
        x, where = clip + state[f"{side}_pos_embedding"], f"{side}_temporal_transformer"
        for n in range(2):
            layer = f"{where}.layers.{n}"
            qkv = lined(state, f"{layer}.0.fn.to_qkv", normed(state, f"{layer}.0.norm", x))
            x = x + lined(state, f"{layer}.0.fn.to_out.0", attended(*qkv.chunk(3, -1), heads))
            inner = gelu(lined(state, f"{layer}.1.fn.net.0", normed(state, f"{layer}.1.norm", x)))
            x = x + lined(state, f"{layer}.1.fn.net.3", inner)
        rows.append(normed(state, f"{where}.norm", x).flatten(0, 1))
    return torch.stack(rows)


def seen(state: State, near: Tensor, whole: Tensor, heads: int) -> Tensor:
    near, whole = frames_read(state, "local", near, heads), frames_read(state, "global", whole, heads)
    at = "multi_head_cross_attention"
    found = attended(
        lined(state, f"{at}.query", near), lined(state, f"{at}.key", whole), lined(state, f"{at}.value", whole), 3
    )
    x = normed(state, f"{at}.norm1", found + near)
    x = normed(state, f"{at}.norm2", lined(state, f"{at}.final_linear", x) + x)
    return lined(state, "visual_feature_proj", x)


def written(state: State, sequence: Tensor, memory: Tensor, heads: int) -> Tensor:
    """(B, K, S) and (B, S', D) → logits (B, K, S, V)."""
    count, width = sequence.shape[1], memory.shape[-1]
    x = torch.stack([state[f"emb.{k}.weight"][sequence[:, k]] for k in range(count)]).sum(0)
    half = width // 2
    angles = torch.arange(x.shape[1])[:, None] / 10000 ** (torch.arange(half) / (half - 1))
    x = x + torch.cat([angles.cos(), angles.sin()], -1)
    for n in range(tiny.NUM_LAYERS):
        layer = f"transformer.layers.{n}"
        own = linear(normed(state, f"{layer}.norm1", x), state[f"{layer}.self_attn.in_proj_weight"])
        x = x + lined(state, f"{layer}.self_attn.out_proj", attended(*own.chunk(3, -1), heads, causal=True))
        query, key, value = state[f"{layer}.cross_attention.in_proj_weight"].chunk(3)
        asked = linear(normed(state, f"{layer}.norm_cross", x), query)
        heard = attended(asked, linear(memory, key), linear(memory, value), heads)
        x = x + lined(state, f"{layer}.cross_attention.out_proj", heard)
        x = x + lined(
            state, f"{layer}.linear2", gelu(lined(state, f"{layer}.linear1", normed(state, f"{layer}.norm2", x)))
        )
    x = normed(state, "out_norm", x)
    return torch.stack([lined(state, f"linears.{k}", x) for k in range(count)], 1)


def shown(near: Tensor, whole: Tensor) -> VisualInputs:
    """All of it is there; the published shape knows neither times nor rhythm."""
    times = [torch.zeros(each.shape[:2]) for each in (near, whole)]
    masks = [torch.ones(each.shape[:2], dtype=torch.bool) for each in (near, whole)]
    return VisualInputs(near, times[0], masks[0], whole, times[1], masks[1], near[..., 0], times[0], masks[0])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tiny.write_vidmuse(tmp_path_factory.mktemp("vidmuse"), position_ids=True)
    return torch.load(folder / "state_dict.bin", weights_only=True)


@torch.inference_mode()
def test_frames_to_logits_equal_the_published_code(package: dict[str, Any]) -> None:
    """The window and the whole video have different numbers of frames; both matter."""
    state, settings = package["best_state"], yaml.safe_load(package["xp.cfg"])
    heads = settings["transformer_lm"]["num_heads"]
    own, _ = vidmuse.to_v2m(state)
    model = MusicModel(MusicConfig.from_dict(vidmuse.config_to_v2m(settings, state))).eval()
    model.load_state_dict(own)
    generator = torch.Generator().manual_seed(2)
    near, whole = (torch.randn(2, frames, tiny.NUM_TOKENS, tiny.VISION_DIM, generator=generator) for frames in (3, 4))
    codes = torch.randint(tiny.CODEBOOK_SIZE, (2, tiny.NUM_CODEBOOKS, 30), generator=generator)
    sequence = patterns.apply_delays(codes, model.config.lm.delay_pattern, model.config.lm.special_token_id)
    memory = model.encode_video(shown(near, whole))
    expected = seen(state, near, whole, heads)
    assert memory.mask.all()
    assert memory.tokens.shape == (2, 3 * tiny.NUM_TOKENS, tiny.DIM)
    assert torch.allclose(memory.tokens, expected, rtol=0, atol=1e-4)
    other = model.encode_video(shown(near, whole.flip(0))).tokens
    assert (other - memory.tokens).abs().max() > 0.01, "the whole video is looked at"
    logits = written(state, sequence, expected, heads)
    assert logits.std() > 0.3
    assert torch.allclose(model.lm(sequence, memory), logits, rtol=0, atol=1e-4)
    assert (model.lm(sequence, Condition.from_tokens(memory.tokens.flip(0))) - logits).abs().max() > 0.01


def test_clip_encoder_equals_transformers(package: dict[str, Any]) -> None:
    _, clip = vidmuse.to_v2m(package["best_state"])
    config = vidmuse.clip_config(clip)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))
    model.load_state_dict(clip)
    expected = tiny.clip_config().to_dict()
    assert {name: value for name, value in config.items() if name != "architectures"}.items() <= expected.items()
    assert model(torch.zeros(1, 3, 224, 224)).last_hidden_state.shape == (1, tiny.NUM_TOKENS, tiny.VISION_DIM)
