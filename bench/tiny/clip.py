"""Vision models of some 30 k random parameters in transformers' published formats: CLIP, SigLIP, DINOv2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

SIDE, PATCH, WIDTH = 32, 8, 32
SIZES: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"image_size": SIDE, "patch_size": PATCH}
Kind = Literal["clip", "tower", "siglip", "dinov2"]


def model(kind: Kind, *, seed: int = 0, **sizes: Any) -> Any:
    """`clip` is the whole with its words, `tower` its vision alone; `sizes` take the place of the settings here."""
    settings = SIZES | sizes
    wide: dict[str, Any] = settings | {"intermediate_size": 64}
    vision = CLIPVisionConfig(**wide, projection_dim=16)
    words = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words |= {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    whole = CLIPConfig(vision_config=vision.to_dict(), text_config=words, projection_dim=16)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if kind == "clip":
            made: Any = CLIPModel(whole)
        elif kind == "tower":
            made = CLIPVisionModelWithProjection(vision)
        elif kind == "siglip":
            made = SiglipVisionModel(SiglipVisionConfig(**wide))
        else:
            made = Dinov2Model(Dinov2Config(**settings))
        liven(made)
    return made.eval()


@torch.no_grad()
def liven(made: torch.nn.Module) -> None:
    """As initialised, attention is alike to all patches."""
    for name, value in made.named_parameters():
        if value.ndim >= 2:
            value.mul_(4)
        elif "bias" in name:
            value.normal_(0, 0.1)


def write(folder: Path, kind: Kind = "clip", *, seed: int = 0, **sizes: Any) -> Path:
    """Config, weights and what is done to pictures, into `folder`, which is returned."""
    made = model(kind, seed=seed, **sizes)
    made.save_pretrained(folder)
    side = made.config.vision_config.image_size if kind == "clip" else made.config.image_size
    said: dict[str, Any] = {"crop_size": {"height": side, "width": side}, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def save(folder: Path, state: dict[str, Tensor]) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
