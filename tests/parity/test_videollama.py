"""The authors' VideoLLaMA3, written out slowly from their layout, against transformers' after conversion.

S text positions, P patches, F frames, D width, H heads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

from tests.fixtures.tiny.videollama import make_native, make_original
from v2m.mappings.videollama import config_to_native, to_native

FRAMES, HIGH, WIDE, MERGE = 3, 4, 6, 2  # patches down and across


class Slow:
    """One sequence, no cache, loops where a reader would write them; takes the authors' names as they are."""

    def __init__(self, state: dict[str, Tensor], config: dict[str, Any]) -> None:
        self.state, self.config = state, config

    def linear(self, x: Tensor, name: str) -> Tensor:
        product = x @ self.state[f"{name}.weight"].T
        return product + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else product

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        centerd = x - x.mean(-1, keepdim=True)
        scaled = centerd / torch.sqrt(centerd.square().mean(-1, keepdim=True) + 1e-6)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def rms_norm(self, x: Tensor, name: str) -> Tensor:
        eps = self.config["rms_norm_eps"]
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * self.state[f"{name}.weight"]

    def frame(self, patches: Tensor) -> Tensor:
        """(P, 588) of one frame, merged block by merged block → (P / 4, D): each frame sees itself alone."""
        vision = self.config["vision_encoder_config"]
        name, heads = "model.vision_encoder", vision["num_attention_heads"]
        kernel = self.state[f"{name}.embeddings.patch_embedding.weight"]
        x = patches @ kernel.flatten(1).T + self.state[f"{name}.embeddings.patch_embedding.bias"]
        angles = self.vision_angles(vision["hidden_size"] // heads)
        for layer in range(vision["num_hidden_layers"]):
            at = f"{name}.encoder.layers.{layer}"
            seen = self.layer_norm(x, f"{at}.layer_norm1")
            q, k, v = (self.linear(seen, f"{at}.self_attn.{each}_proj") for each in "qkv")
            q, k, v = (each.view(len(x), heads, -1) for each in (q, k, v))
            q, k = turned(q, angles), turned(k, angles)
            x = x + self.linear(attended(q, k, v).flatten(1), f"{at}.self_attn.out_proj")
            inner = self.linear(self.layer_norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
            x = x + self.linear(nn.functional.gelu(inner, approximate="tanh"), f"{at}.mlp.fc2")
        x = self.layer_norm(x, f"{name}.post_layernorm")
        x = x.view(-1, MERGE * MERGE, x.shape[-1]).mean(1)  # halving by bilinear interpolation is the blocks' mean
        x = nn.functional.gelu(self.linear(x, "model.mm_projector.readout.0"))
        return self.linear(x, "model.mm_projector.readout.2")

    @staticmethod
    def vision_angles(width: int) -> Tensor:
        """(P, width / 2): the row's angles, then the column's, for patches in the order of the merged blocks."""
        places = [
            (row + inner_row, column + inner_column)
            for row in range(0, HIGH, MERGE)
            for column in range(0, WIDE, MERGE)
            for inner_row in range(MERGE)
            for inner_column in range(MERGE)
        ]
        speeds = [10000.0 ** (-4 * n / width) for n in range(width // 4)]
        return torch.tensor([[place * speed for place in each for speed in speeds] for each in places])

    def text(self, embeddings: Tensor) -> Tensor:
        """(S, D) → logits (S, vocabulary)."""
        heads, shared = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        width = self.config["hidden_size"] // heads
        speeds = self.config["rope_theta"] ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(len(embeddings))[:, None] * speeds
        x = embeddings
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            seen = self.rms_norm(x, f"{at}.input_layernorm")
            q = turned(self.linear(seen, f"{at}.self_attn.q_proj").view(len(x), heads, width), angles)
            k = turned(self.linear(seen, f"{at}.self_attn.k_proj").view(len(x), shared, width), angles)
            v = self.linear(seen, f"{at}.self_attn.v_proj").view(len(x), shared, width)
            k, v = (each.repeat_interleave(heads // shared, dim=1) for each in (k, v))
            x = x + self.linear(attended(q, k, v, causal=True).flatten(1), f"{at}.self_attn.o_proj")
            seen = self.rms_norm(x, f"{at}.post_attention_layernorm")
            gate = nn.functional.silu(self.linear(seen, f"{at}.mlp.gate_proj"))
            x = x + self.linear(gate * self.linear(seen, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
        head = self.state.get("lm_head.weight", self.state["model.embed_tokens.weight"])
        return self.rms_norm(x, "model.norm") @ head.T


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """(S, H, D) rotated by (S, D / 2): entry i with entry i + D / 2."""
    one, two = x.chunk(2, dim=-1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


def attended(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    weights = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    if causal:
        weights = weights.masked_fill(torch.ones(len(q), len(k)).triu(1).bool(), -torch.inf)
    return torch.einsum("hqk,khd->qhd", weights.softmax(-1), v)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_original(tmp_path_factory.mktemp("tiny") / "original", seed=3)


@torch.inference_mode()
def test_converted_model_gives_the_original_logits(folder: Path) -> None:
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    made = VideoLlama3Config.from_dict(config_to_native(config))
    made.video_token_id = 300  # the placeholder of this small vocabulary
    native = VideoLlama3ForConditionalGeneration(made).eval()
    assert native.load_state_dict(to_native(state), strict=False).missing_keys == ["lm_head.weight"]
    native.tie_weights()
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(FRAMES, HIGH * WIDE, 588, generator=generator) * 2 - 1
    kept = torch.rand(FRAMES * HIGH * WIDE // 4, generator=generator) > 0.3  # of the compressed tokens

    slow = Slow(state, config)
    seen = torch.cat([slow.frame(frame) for frame in patches])[kept]
    before, after = torch.tensor([5, 17, 200]), torch.tensor([9, 8, 7, 6])
    table = state["model.embed_tokens.weight"]
    wanted = slow.text(torch.cat([table[before], seen, table[after]]))

    ids = torch.cat([before, torch.full((len(seen),), 300), after])[None]
    given = native(
        input_ids=ids,
        pixel_values_videos=patches.flatten(0, 1),
        video_grid_thw=torch.tensor([[FRAMES, HIGH, WIDE]]),
        video_merge_sizes=torch.tensor([MERGE]),
        video_compression_mask=kept,
    ).logits[0]
    assert wanted.std() > 0.1  # not a comparison of nothings
    assert float((given - wanted).abs().max()) <= 1e-5
    blind = slow.text(torch.cat([table[before], torch.zeros_like(seen), table[after]]))
    assert float((blind - wanted)[-1].abs().max()) > 1e-3  # the frames reach the last word


def test_both_layouts_hold_the_same_weights(folder: Path, tmp_path: Path) -> None:
    there = to_native(load_file(folder / "model.safetensors"))
    here = load_file(make_native(tmp_path, seed=3) / "model.safetensors")
    assert set(there) == set(here)
    assert all(torch.equal(there[name], here[name]) for name in here)
