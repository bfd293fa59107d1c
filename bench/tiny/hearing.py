"""CLAP, AST and PE-AV of some 100 k random parameters in transformers' published formats; VGGish at its one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    PeAudioFeatureExtractor,
    PeAudioVideoConfig,
    PeAudioVideoModel,
    PeVideoVideoProcessor,
    RobertaTokenizer,
)

from bench.tiny import sonique
from v2m.frozen.embeddings.vggish import FILE, network

CLASSES, SIDE = 12, 28
ENCODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def clap(folder: Path, *, fused: bool = False, seed: int = 0) -> Path:
    """The shapes of laion/clap-htsat-*, whose layers are wider and more."""
    audio: dict[str, Any] = {"depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16, "spec_size": 256}
    audio |= {"patch_embeds_hidden_size": 8, "num_hidden_layers": 2, "enable_fusion": fused, "projection_dim": 12}
    audio |= {"aff_block_r": 2, "enable_patch_fusion": fused, "num_mel_bins": 64}
    text = {**ENCODER, "vocab_size": 512, "max_position_embeddings": 82, "projection_dim": 12, "pad_token_id": 1}
    made = _seeded(ClapModel, ClapConfig(text_config=text, audio_config=audio, projection_dim=12), seed)
    _save(made, folder)
    truncation = "fusion" if fused else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation).save_pretrained(folder)
    sonique.tokenizer(folder)
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def ast(folder: Path, *, seed: int = 0) -> Path:
    """The shape of MIT/ast-finetuned-audioset-10-10-0.4593, at a tenth of its length."""
    config = ASTConfig(**ENCODER, max_length=104, num_mel_bins=32, num_labels=CLASSES)  # type: ignore[call-arg]
    _save(_seeded(ASTForAudioClassification, config, seed), folder)
    ASTFeatureExtractor(max_length=104, num_mel_bins=32).save_pretrained(folder)
    return folder


def pe_av(folder: Path, *, seed: int = 0) -> Path:
    """The shape of facebook/pe-av-*, which sees pictures of 336 pixels."""
    encoder = {**ENCODER, "head_dim": 8}
    codec = {"encoder_hidden_size": 4, "hidden_size": 64, "codebook_dim": 8, "downsampling_ratios": [2, 8, 10, 12]}
    size = {"embed_dim": 16, "img_size": (SIDE, SIDE), "depth": 1, "num_heads": 2}
    vision = {"architecture": "vit_pe_core_large_patch14_336", "do_pooling": True, "num_classes": 8}
    vision |= {"global_pool": "map", "initializer_range": 0.02, "model_args": size}
    text = {**ENCODER, "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    text |= {"cls_token_id": 2, "sep_token_id": 1}
    whole = {**encoder, "audio_config": {**encoder, "dac_config": codec}}
    whole |= {"video_config": {**encoder, "vision_config": vision}}
    config = PeAudioVideoConfig(text_config=text, audio_video_config=whole)  # type: ignore[arg-type]
    _save(_seeded(PeAudioVideoModel, config, seed), folder)
    PeAudioFeatureExtractor().save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    given: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}, "image_mean": half, "image_std": half}
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    PeVideoVideoProcessor(**steps, **given).save_pretrained(folder)
    return folder


def vggish(folder: Path, *, seed: int = 0) -> Path:
    """A pickle as torchvggish publishes it, of 288 MB: the model has one size."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        torch.save(network().state_dict(), folder / FILE)
    return folder


def _seeded(kind: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = kind(config).eval()
        _liven(made)
    return made


@torch.no_grad()
def _liven(made: nn.Module) -> None:
    """As initialised, all that is heard is nearly alike."""
    for name, value in made.named_parameters():
        if value.ndim >= 2:
            value.mul_(3)
        elif "bias" in name:
            value.normal_(0, 0.1)


def _save(made: Any, folder: Path) -> None:
    made.save_pretrained(folder)
