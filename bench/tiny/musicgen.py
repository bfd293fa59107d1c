"""Music language models of some 50 k random parameters, in the formats of transformers, audiocraft and VidMuse.

Each speaks to an EnCodec of `bench.tiny.encodec` (4 codebooks of 64 entries, 50 frames a second at 32 kHz) and reads
what the T5 of `bench.tiny.t5` says.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    EncodecFeatureExtractor,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyFeatureExtractor,
    MusicgenMelodyForConditionalGeneration,
    PreTrainedModel,
)

from bench.tiny import encodec, t5

WIDTH, LAYERS, HEADS, TEXT = 32, 2, 4, 16
ENTRIES, CODEBOOKS, SAMPLE_RATE = encodec.ENTRIES, encodec.CODEBOOKS, encodec.SAMPLE_RATE
CHROMA, CHROMA_FRAMES = 12, 235
SEEN, TOKENS = 24, 50  # width of the vision encoder, and how many tokens it gives a frame of 224 by 224 pixels
LICENCE = "---\nlicense: cc-by-nc-4.0\n---\n# A tiny random model\n"


def transformers_folder(folder: Path, *, seed: int = 0, stereo: bool = False, melody: bool = False) -> Path:
    """As facebook/musicgen-*: language model, T5 and EnCodec in one file, with T5's tokenizer."""
    t5.write(folder, seed=seed)
    text = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    decoder = {
        "vocab_size": ENTRIES,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "ffn_dim": 4 * WIDTH,
        "num_codebooks": 2 * CODEBOOKS if stereo else CODEBOOKS,
        "audio_channels": 2 if stereo else 1,
        "dropout": 0.0,
        "initializer_factor": 1 / math.sqrt(WIDTH),
        "pad_token_id": ENTRIES,
        "bos_token_id": ENTRIES,
        "max_position_embeddings": 2048,
    }
    parts: Any = {
        "text_encoder": t5.config().to_dict(),
        "audio_encoder": encodec.config().to_dict(),
        "decoder": decoder,
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if melody:
            settings: Any = MusicgenMelodyConfig(**parts, num_chroma=CHROMA, chroma_length=CHROMA_FRAMES)
            model: Any = MusicgenMelodyForConditionalGeneration(settings)
        else:
            settings = MusicgenConfig(**parts)
            model = MusicgenForConditionalGeneration(settings)
        _unlike(model.decoder)
        for each in (model.enc_to_dec_proj, getattr(model, "audio_enc_to_dec_proj", None)):
            if each is not None:
                each.reset_parameters()
    model.text_encoder.load_state_dict(text, strict=False)  # the embedding is there once, under one of its two names
    model.audio_encoder.load_state_dict(encodec.model(encodec.config(), seed=seed).state_dict())
    special = {"pad_token_id": ENTRIES, "bos_token_id": ENTRIES, "decoder_start_token_id": ENTRIES}
    model.generation_config.update(**special, do_sample=True, guidance_scale=3.0, max_length=1500)
    _save(model, folder)
    if melody:
        extractor: Any = MusicgenMelodyFeatureExtractor(sampling_rate=SAMPLE_RATE, feature_size=12)
    else:
        extractor = EncodecFeatureExtractor(feature_size=1 + stereo, sampling_rate=SAMPLE_RATE, padding_side="left")
    extractor.save_pretrained(folder)
    (folder / "README.md").write_text(LICENCE)
    return folder


def _save(model: PreTrainedModel, folder: Path) -> None:
    """With what the published files also hold: weight norm's old names, and the positions."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    state = {name: value.clone() for name, value in load_file(path).items()}
    state = encodec.published(state)
    positions: Any = model.get_submodule("decoder.model.decoder.embed_positions")
    state["decoder.model.decoder.embed_positions.weights"] = positions.weights.clone()
    save_file(state, path, {"format": "pt"})


def audiocraft_settings(*, stereo: bool = False, melody: bool = False) -> dict[str, Any]:
    """What `xp.cfg` of facebook/musicgen-small (-stereo-small, -melody) says, but for sizes."""
    count = 2 * CODEBOOKS if stereo else CODEBOOKS
    delays = [k // 2 for k in range(count)] if stereo else list(range(count))
    conditioners: dict[str, Any] = {
        "args": {"merge_text_conditions_p": 0.25, "drop_desc_p": 0.5},
        "description": {
            "model": "t5",
            "t5": {"name": "t5-base", "finetune": False, "word_dropout": 0.3, "normalize_text": False},
        },
    }
    fuser: dict[str, Any] = {"cross_attention_pos_emb": False, "cross_attention_pos_emb_scale": 1}
    fuser |= {"sum": [], "prepend": [], "cross": ["description"], "input_interpolate": []}
    if melody:
        chroma = {"sample_rate": SAMPLE_RATE, "n_chroma": CHROMA, "radix2_exp": 14, "argmax": True}
        chroma |= {"match_len_on_eval": True, "eval_wavs": None, "n_eval_wavs": 100, "cache_path": None}
        conditioners["self_wav"] = {"model": "chroma_stem", "chroma_stem": chroma}
        fuser |= {"prepend": ["self_wav", "description"], "cross": []}
    return {
        "solver": "musicgen",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": SAMPLE_RATE,
        "channels": 2 if stereo else 1,
        "compression_model_checkpoint": "//pretrained/facebook/encodec_32khz",
        "compression_model_n_q": None,
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "lm_model": "transformer_lm",
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": delays, "flatten_first": 0, "empty_initial": 0},
        },
        "transformer_lm": {
            "n_q": count,
            "card": ENTRIES,
            "dim": WIDTH,
            "num_heads": HEADS,
            "num_layers": LAYERS,
            "hidden_scale": 4,
            "dropout": 0.0,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "norm": "layer_norm",
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "past_context": None,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
            "xpos": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": True,
            "cross_attention": False,
            "qk_layer_norm": False,
            "qk_layer_norm_cross": False,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {"args": {"active_on_eval": False}, "text": {}, "wav": {}},
        "conditioners": conditioners,
        "fuser": fuser,
        "dataset": {"segment_duration": 30},
    }


class Given(nn.Module):
    """What stands for the text encoder in audiocraft's own loop: `memory` for what is said, 0 for what is not."""

    def __init__(self, memory: Tensor) -> None:
        super().__init__()
        self.memory = memory

    def tokenize(self, _: Any) -> None:
        return None

    def forward(self, _: Any) -> dict[str, tuple[Tensor, Tensor]]:
        tokens = torch.cat([self.memory, torch.zeros_like(self.memory)])
        return {"description": (tokens, torch.ones(tokens.shape[:2]))}


def audiocraft_model(settings: dict[str, Any], *, seed: int = 0) -> Any:
    """audiocraft's own `LMModel`. Its conditioners, which would be downloaded, are only the layers that it learns."""
    import omegaconf  # noqa: PLC0415 (as audiocraft, which takes seconds)
    from audiocraft.models import builders  # noqa: PLC0415
    from audiocraft.models.lm import LMModel  # noqa: PLC0415
    from audiocraft.modules.conditioners import BaseConditioner, ConditioningProvider  # noqa: PLC0415

    config: Any = omegaconf.OmegaConf.create(settings)
    sizes = dict(settings["transformer_lm"])
    sizes["cross_attention"] = bool(settings["fuser"]["cross"])
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        conditioners: dict[str, Any] = {"description": BaseConditioner(TEXT, sizes["dim"])}
        if "self_wav" in settings["conditioners"]:
            heard: Any = BaseConditioner(CHROMA, sizes["dim"])
            heard.chroma, heard.chroma.spec = nn.Module(), nn.Module()
            heard.chroma.spec.register_buffer("window", torch.hann_window(2**14))
            conditioners["self_wav"] = heard
        model: Any = LMModel(
            pattern_provider=builders.get_codebooks_pattern_provider(sizes["n_q"], config.codebooks_pattern),
            condition_provider=ConditioningProvider(conditioners),
            fuser=builders.get_condition_fuser(config),
            cfg_dropout=config.classifier_free_guidance.training_dropout,
            cfg_coef=config.classifier_free_guidance.inference_coef,
            dtype=torch.float32,
            **sizes,
        ).eval()
        _unlike(model.transformer, model.out_norm)
    return model


def audiocraft_folder(
    folder: Path, *, seed: int = 0, stereo: bool = False, melody: bool = False, whole: bool = False
) -> Path:
    """`state_dict.bin` and `compression_state_dict.bin`, which holds the codec if `whole` and else only names it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = audiocraft_settings(stereo=stereo, melody=melody)
    _export(folder, settings, audiocraft_model(settings, seed=seed).state_dict())
    path = folder / "compression_state_dict.bin"
    _ = encodec.audiocraft_compression(path, seed=seed) if whole else encodec.audiocraft_reference(path)
    return folder


def vidmuse_settings() -> dict[str, Any]:
    """What `xp.cfg` of VidMuse says beside what MusicGen's does."""
    seen = {
        "visual_encoder": "clip",
        "add_global": {"if_add_gobal": True, "mode": "average", "num_frames": 64},  # so misspelt
        "video_fps": 2,
    }
    return audiocraft_settings() | {"video": seen}


def vidmuse_folder(folder: Path, *, seed: int = 0, positions: bool = False) -> Path:
    """As Zeyue7/VidMuse; with `positions` CLIP's buffer of them is there, as older libraries saved it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = vidmuse_settings()
    state = audiocraft_model(settings, seed=seed).state_dict() | _seeing(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        clip = CLIPVisionModelWithProjection(clip_config())
    prefix = "visual_encoder_model."
    state |= {prefix + name: value for name, value in clip.state_dict().items()}
    if positions:
        state[f"{prefix}vision_model.embeddings.position_ids"] = torch.arange(TOKENS)[None]
    _export(folder, settings, state)
    encodec.audiocraft_reference(folder / "compression_state_dict.bin")
    return folder


def clip_config() -> CLIPVisionConfig:
    """The shape of openai/clip-vit-base-patch32, whose width is 768 and which has 12 layers."""
    return CLIPVisionConfig(
        hidden_size=SEEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=1,  # 64 wide or less, as they all are
        projection_dim=16,
        image_size=224,
        patch_size=32,
    )


def _seeing(seed: int) -> dict[str, Tensor]:
    """What VidMuse learns beside the language model; heads are 64 wide, as published, and as many as its."""
    random, state = torch.Generator().manual_seed(seed + 1), {}

    def linear(name: str, out: int, width: int, *, bias: bool = True) -> None:
        state[f"{name}.weight"] = torch.randn(out, width, generator=random) / math.sqrt(width)
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(out, generator=random)

    def norm(name: str) -> None:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(SEEN, generator=random)
        state[f"{name}.bias"] = 0.2 * torch.randn(SEEN, generator=random)

    for side in ("local", "global"):
        state[f"{side}_pos_embedding"] = torch.randn(1, TOKENS, SEEN, generator=random)
        norm(f"{side}_temporal_transformer.norm")
        for n in range(2):
            layer = f"{side}_temporal_transformer.layers.{n}"
            norm(f"{layer}.0.norm")
            linear(f"{layer}.0.fn.to_qkv", 3 * 64 * HEADS, SEEN, bias=False)
            linear(f"{layer}.0.fn.to_out.0", SEEN, 64 * HEADS)
            norm(f"{layer}.1.norm")
            linear(f"{layer}.1.fn.net.0", 4 * SEEN, SEEN)
            linear(f"{layer}.1.fn.net.3", SEEN, 4 * SEEN)
    for name in ("query", "key", "value", "final_linear"):
        linear(f"multi_head_cross_attention.{name}", SEEN, SEEN)
    norm("multi_head_cross_attention.norm1")
    norm("multi_head_cross_attention.norm2")
    linear("visual_feature_proj", WIDTH, SEEN)
    return state


def _export(folder: Path, settings: dict[str, Any], state: dict[str, Tensor]) -> None:
    package = {"best_state": state, "xp.cfg": yaml.safe_dump(settings), "version": "1.3.0", "exported": True}
    torch.save(package, folder / "state_dict.bin")


@torch.no_grad()
def _unlike(*modules: nn.Module) -> None:
    """Makes norms differ from each other and from doing nothing, which they all are at first."""
    for module in modules:
        for name, value in module.named_parameters():
            if "norm" in name:
                value.add_(0.2 * torch.randn(value.shape))
