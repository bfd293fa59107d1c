"""Supported pipelines: their files, capabilities and arguments, known without loading any weights.

ACE-Step takes tempo, key, meter and lyrics apart from the prompt, and no negative prompt; Stable Audio takes a prompt
and a negative prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from v2m.core import prompts
from v2m.core.errors import DependencyError
from v2m.core.timing import samples_to_seconds
from v2m.core.types import Tags
from v2m.pretrained.safe_load import read_json

PipelineKind = Literal["AceStepPipeline", "StableAudioPipeline", "StableAudio3Pipeline"]

COVER_COMPONENTS = ("audio_tokenizer", "audio_token_detokenizer")
OPTIONAL_COMPONENTS = ("condition_encoder", "projection_model", "duration_embedder", *COVER_COMPONENTS)
ACE_STEP_RANGE_S = (10.0, 600.0)  # durations of ACE-Step 1.5's training
NATURAL_PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def _component_files(name: str, suffix: str = "") -> tuple[str, str]:
    weights = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-*.safetensors")
    return f"{name}/*.json{suffix}", "|".join(f"{name}/{file}" for file in weights) + suffix


FILES = (  # of all three pipelines; safetensors only, no copies in other formats or dtypes
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    "text_encoder/*.json",
    "text_encoder/model.safetensors|text_encoder/model-*.safetensors",
    *_component_files("vae"),
    *_component_files("transformer"),
    *(pattern for name in OPTIONAL_COMPONENTS for pattern in _component_files(name, "|")),  # "…|": or nothing
)


@dataclass(frozen=True)
class PipelineInfo:
    """Kind and capabilities of a supported pipeline."""

    kind: PipelineKind
    sample_rate: int
    channels: int
    min_duration: float  # seconds of one call
    max_duration: float
    supports_cfg: bool  # guidance has an effect, for it is not built into the weights
    supports_melody: bool

    @classmethod
    def from_folder(cls, folder: Path) -> PipelineInfo:
        """Read a pipeline's folder; DependencyError where it holds another, or unreadable settings."""
        kind = read_json(folder / "model_index.json").get("_class_name")
        readers = {
            "AceStepPipeline": _read_ace_step,
            "StableAudioPipeline": _read_stable_audio,
            "StableAudio3Pipeline": _read_stable_audio_3,
        }
        if kind not in readers:
            message = f"{str(folder)!r} holds a {kind}, which is not known here: give one of {', '.join(readers)}"
            raise DependencyError(message)
        try:
            return readers[kind](folder)
        except (KeyError, TypeError, ValueError) as error:
            message = f"the settings in {str(folder)!r} lack or misstate {error}: fetch it again"
            raise DependencyError(message) from error


def _read_ace_step(folder: Path) -> PipelineInfo:
    index, vae, transformer = read_json(folder / "model_index.json"), _read(folder, "vae"), _read(folder, "transformer")
    turbo = bool(transformer.get("is_turbo")) or transformer.get("model_version") == "turbo"
    return PipelineInfo(
        "AceStepPipeline", int(vae["sampling_rate"]), int(vae["audio_channels"]), *ACE_STEP_RANGE_S,
        supports_cfg=not turbo, supports_melody=all((index.get(name) or [None])[0] for name in COVER_COMPONENTS),
    )  # fmt: skip


def _read_stable_audio(folder: Path) -> PipelineInfo:
    vae, transformer = _read(folder, "vae"), _read(folder, "transformer")
    rate = int(vae["sampling_rate"])
    max_duration = samples_to_seconds(int(transformer["sample_size"]) * math.prod(vae["downsampling_ratios"]), rate)
    return PipelineInfo("StableAudioPipeline", rate, int(vae["audio_channels"]), 0.0, max_duration, True, True)


def _read_stable_audio_3(folder: Path) -> PipelineInfo:
    vae, duration = _read(folder, "vae"), _read(folder, "duration_embedder")
    distilled = bool(read_json(folder / "scheduler" / "scheduler_config.json").get("stochastic_sampling"))
    rate, channels = int(vae["sampling_rate"]), int(vae["audio_channels"])
    return PipelineInfo("StableAudio3Pipeline", rate, channels, 0.0, float(duration["max_val"]), not distilled, True)


def _read(folder: Path, component: str) -> dict[str, Any]:
    return read_json(folder / component / "config.json")


def ace_step_arguments(tags: Tags, meter: int | None, vocal_language: str) -> dict[str, Any]:
    """Arguments of `AceStepPipeline`; `meter` is beats of a bar."""
    lyrics = tags.lyrics.strip() if tags.vocals else ""
    return {
        "prompt": prompts.build_prompt(replace(tags, tempo=None, key=None)),
        "lyrics": lyrics or "[Instrumental]",  # as it was trained to leave voices out, with an unknown language
        "vocal_language": vocal_language if lyrics else "unknown",
        "bpm": None if tags.tempo is None else round(tags.tempo),
        "keyscale": key_name(tags),
        "timesignature": None if meter is None else str(meter),
    }


def stable_audio_arguments(tags: Tags, meter: int | None) -> dict[str, Any]:
    """Arguments of `StableAudioPipeline` and `StableAudio3Pipeline`."""
    time_signature = "" if meter is None else f"{meter}/{8 if meter == 6 else 4} time"
    return {
        "prompt": ", ".join(filter(None, [prompts.build_prompt(tags), time_signature, "instrumental"])),
        "negative_prompt": prompts.build_negative_prompt(tags) or None,
    }


def key_name(tags: Tags) -> str | None:
    """The key in the form "F# minor", however the user spelled it."""
    if tags.key is None or tags.tonic_and_mode is None:
        return None
    letter = tags.key.strip()[0].upper()
    tonic, mode = tags.tonic_and_mode
    accidental = {0: "", 1: "#", 11: "b"}[(tonic - NATURAL_PITCHES[letter]) % 12]
    return f"{letter}{accidental} {mode}"
