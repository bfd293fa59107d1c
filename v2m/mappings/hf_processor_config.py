"""Processor configuration of a MusicGen folder in transformers' layout, as plain JSON values."""

from __future__ import annotations

from typing import Any


def generation_config(special_token_id: int) -> dict[str, Any]:
    """generation_config.json as published; `special` is the code that means "none"."""
    codes = dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), special_token_id)
    return {**codes, "do_sample": True, "guidance_scale": 3.0, "max_length": 1500}


def preprocessor_config(channels: int, sample_rate: int, num_chroma: int | None) -> dict[str, Any]:
    """preprocessor_config.json: of EnCodec's sound, or of a melody's `chroma` pitch classes."""
    shared = {
        "feature_size": channels,
        "padding_side": "left",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": sample_rate,
        "chunk_length_s": None,
        "overlap": None,
    }
    if num_chroma is None:
        return {**shared, "feature_extractor_type": "EncodecFeatureExtractor", "processor_class": "MusicgenProcessor"}
    melody = {
        "num_chroma": num_chroma,
        "n_fft": 16384,
        "hop_length": 4096,
        "chunk_length": 30,
        "feature_size": num_chroma,
    }
    kinds = {
        "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
        "processor_class": "MusicgenMelodyProcessor",
    }
    return {**shared, **melody, **kinds}
