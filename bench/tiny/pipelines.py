"""Pipelines of diffusers of some 100 k random parameters each, in the format they are published in.

A folder with `model_index.json` and a subfolder for each component. Rates and compression are the published ones.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from tokenizers import pre_tokenizers
from torch.nn import Module
from transformers import (
    GemmaTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5EncoderModel,
    T5GemmaConfig,
    T5GemmaEncoderModel,
    T5GemmaModuleConfig,
    T5Tokenizer,
)

from bench.tiny import t5

# as modules without types: what diffusers exports it makes on first use
diffusers, ace, three = (
    cast("Any", import_module(name))
    for name in ("diffusers", "diffusers.pipelines.ace_step", "diffusers.pipelines.stable_audio_3")
)

WIDTH, LATENT = 16, 4  # of words; of sound


def ace_step(folder: Path, *, turbo: bool = True, covers: bool = True, seed: int = 0) -> Path:
    """As ACE-Step/acestep-v15-xl-turbo-diffusers: 48 kHz, 25 latent frames a second. `covers`: with its tokenizer."""
    layers: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    layers |= {"num_key_value_heads": 2, "head_dim": 8, "rope_theta": 10000.0, "sliding_window": 16}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        marks = {"<|endoftext|>": 256}
        tokenizer = Qwen2Tokenizer(vocab=_bytes() | marks, merges=[], pad_token="<|endoftext|>", model_max_length=2048)
        parts: dict[str, Any] = {
            "vae": _oobleck([2, 4, 4, 6, 10], 48000),
            "text_encoder": Qwen3Model(
                Qwen3Config(
                    vocab_size=260, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=2048,
                )
            ),
            "tokenizer": tokenizer,
            "transformer": diffusers.AceStepTransformer1DModel(
                num_hidden_layers=2, in_channels=3 * LATENT, audio_acoustic_hidden_dim=LATENT, is_turbo=turbo, **layers
            ),
            "condition_encoder": ace.AceStepConditionEncoder(
                text_hidden_dim=WIDTH, timbre_hidden_dim=LATENT, num_lyric_encoder_hidden_layers=2,
                num_timbre_encoder_hidden_layers=2, **layers,
            ),
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        }  # fmt: skip
        parts["condition_encoder"].silence_latent.normal_()
        if covers:
            pooled = layers | {"audio_acoustic_hidden_dim": LATENT, "num_attention_pooler_hidden_layers": 1}
            parts["audio_tokenizer"] = ace.AceStepAudioTokenizer(fsq_dim=32, **pooled)
            parts["audio_token_detokenizer"] = ace.AceStepAudioTokenDetokenizer(**pooled)
    return _save(diffusers.AceStepPipeline(**parts), folder, "mit")


def stable_audio(folder: Path, *, frames: int = 128, seed: int = 0) -> Path:
    """As stabilityai/stable-audio-open-1.0: 44.1 kHz, but `frames` latent frames (5.9 s) instead of 1024 (47.6 s)."""
    with torch.random.fork_rng([]), TemporaryDirectory() as words:
        t5.write(Path(words), seed=seed)
        torch.manual_seed(seed)
        parts = {
            "vae": _oobleck([2, 4, 4, 8, 8], 44100),
            "text_encoder": T5EncoderModel.from_pretrained(words),
            "tokenizer": T5Tokenizer.from_pretrained(words, model_max_length=128),
            "projection_model": diffusers.StableAudioProjectionModel(
                text_encoder_dim=WIDTH, conditioning_dim=WIDTH, min_value=0, max_value=512
            ),
            "transformer": _liven(diffusers.StableAudioDiTModel(
                sample_size=frames, in_channels=LATENT, out_channels=LATENT, num_layers=2, attention_head_dim=8,
                num_attention_heads=4, num_key_value_attention_heads=2, cross_attention_dim=WIDTH,
                global_states_input_dim=2 * WIDTH, cross_attention_input_dim=WIDTH, time_proj_dim=32,
            ), 2.0),
            "scheduler": diffusers.CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500, solver_order=2),
        }  # fmt: skip
    return _save(diffusers.StableAudioPipeline(**parts), folder, "other", "stable-audio-community")


def stable_audio_3(folder: Path, *, longest: float = 384.0, distilled: bool = True, seed: int = 0) -> Path:
    """What diffusers' converter makes of stabilityai/stable-audio-3-medium: 44.1 kHz, 10.8 latent frames a second."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        words = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "▁"]
        vocabulary = {word: number for number, word in enumerate([*words, *map(chr, range(33, 127))])}
        text: dict[str, Any] = T5GemmaModuleConfig(
            vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=256,
            layer_types=["full_attention", "full_attention"],
        ).to_dict()  # fmt: skip
        small: dict[str, Any] = {"encoder_transformer_depths": [1], "latent_dim": LATENT, "dim_heads": 8}
        parts = {
            "vae": _autoencoder(diffusers.AutoencoderSAME, encoder_channels=8, encoder_c_mults=[2], **small),
            "text_encoder": T5GemmaEncoderModel(T5GemmaConfig(encoder=text, decoder=text, is_encoder_decoder=False)),
            "tokenizer": GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=256),
            "duration_embedder": three.StableAudio3DurationEmbedder(output_dim=WIDTH, fourier_dim=16, max_val=longest),
            "transformer": _liven(diffusers.StableAudio3DiTModel(
                io_channels=LATENT, embed_dim=32, depth=2, num_heads=2, cond_token_dim=WIDTH, global_cond_dim=WIDTH,
                local_add_cond_dim=LATENT + 1, timestep_features_dim=16, ff_mult=2, num_memory_tokens=3,
            )),
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(
                stochastic_sampling=distilled, num_train_timesteps=1
            ),
        }  # fmt: skip
    return _save(diffusers.StableAudio3Pipeline(**parts), folder, "other", "stabilityai-community")


def _oobleck(ratios: list[int], sample_rate: int) -> Any:
    """The autoencoder of both."""
    return _autoencoder(
        diffusers.AutoencoderOobleck, encoder_hidden_size=2 * LATENT, downsampling_ratios=ratios,
        channel_multiples=[1, 1, 2, 2, 2], decoder_channels=4, decoder_input_channels=LATENT, audio_channels=2,
        sampling_rate=sample_rate, gain=1.6,
    )  # fmt: skip


def _autoencoder(kind: Any, *, gain: float = 1.0, **sizes: Any) -> Any:
    with warnings.catch_warnings():  # of the weight norm that it is built with
        warnings.simplefilter("ignore", FutureWarning)
        return _loud(_liven(kind(**sizes), gain))


def _liven(model: Module, gain: float = 1.0) -> Any:
    """As initialised such narrow models say nearly the same whatever they are given."""
    for name, value in model.named_parameters():
        matrix = value.ndim >= 2 and value.numel() > max(value.shape)
        if (matrix and not value.any()) or name.endswith("new_tokens"):  # nothing, or hardly anything
            value.data.normal_(0, value[0].numel() ** -0.5)
        if name.endswith("weight_g") or (matrix and not name.endswith("weight_v")):
            value.data.mul_(gain)
        if name.endswith("bias"):
            value.data.zero_()
    return model


@torch.no_grad()
def _loud(model: Any) -> Any:
    """Its sound is neither silent nor beyond ±1."""
    last = model.decoder.conv2 if hasattr(model.decoder, "conv2") else model.decoder.blocks[-1].mapping
    last.weight_g.div_(model.decode(torch.randn(1, LATENT, 16)).sample.std() / 0.15)
    return model


def _bytes() -> dict[str, int]:
    return {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _save(pipeline: Any, folder: Path, licence: str, name: str | None = None) -> Path:
    pipeline.save_pretrained(folder)
    card = f"license: {licence}\n" + (f"license_name: {name}\n" if name else "")
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder
