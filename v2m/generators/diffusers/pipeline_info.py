"""Capabilities of a pipeline by the JSON files of its folder, known before any weights are loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from v2m.core.errors import DependencyError
from v2m.core.timing import seconds_of
from v2m.pretrained.safe_load import read_json

PipelineKind = Literal["AceStepPipeline", "StableAudioPipeline", "StableAudio3Pipeline"]

WEIGHT_FILES = "diffusion_pytorch_model.safetensors|diffusion_pytorch_model-*.safetensors"
REQUIRED_COMPONENTS = ("vae", "transformer")
OPTIONAL_COMPONENTS = (
    "condition_encoder",
    "projection_model",
    "duration_embedder",
    "audio_tokenizer",
    "audio_token_detokenizer",
)
FILES = (  # of all three pipelines; safetensors only, no copies in other formats or dtypes
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    "text_encoder/*.json",
    "text_encoder/model.safetensors|text_encoder/model-*.safetensors",
    *(f"{part}/*.json" for part in REQUIRED_COMPONENTS),
    *("|".join(f"{part}/{name}" for name in WEIGHT_FILES.split("|")) for part in REQUIRED_COMPONENTS),
    *(f"{part}/*.json|" for part in OPTIONAL_COMPONENTS),
    *("|".join(f"{part}/{name}" for name in WEIGHT_FILES.split("|")) + "|" for part in OPTIONAL_COMPONENTS),
)
ACE_STEP_RANGE_S = (10.0, 600.0)  # durations of ACE-Step 1.5's training
COVER_COMPONENTS = ("audio_tokenizer", "audio_token_detokenizer")


@dataclass(frozen=True)
class PipelineInfo:
    """Kind and capabilities of a supported pipeline.

    min_duration, max_duration: seconds of one call. supports_cfg: guidance has an effect, for it is not built into the
    weights. supports_melody: it can follow a melody.
    """

    kind: PipelineKind
    sample_rate: int
    channels: int
    min_duration: float
    max_duration: float
    supports_cfg: bool
    supports_melody: bool

    @classmethod
    def from_folder(cls, folder: Path) -> PipelineInfo:
        """Read a pipeline's folder.

        Raises:
            DependencyError: It holds another pipeline, or its settings cannot be read.
        """
        index = read_json(folder / "model_index.json")
        kind = index.get("_class_name")
        readers = {
            "AceStepPipeline": _read_ace_step,
            "StableAudioPipeline": _read_stable_audio,
            "StableAudio3Pipeline": _read_stable_audio_3,
        }
        if kind not in readers:
            raise DependencyError(
                f"{str(folder)!r} holds a {kind}, which is not known here: give one of {', '.join(readers)}"
            )
        try:
            return readers[kind](folder, index)
        except (KeyError, TypeError, ValueError) as error:
            raise DependencyError(
                f"the settings in {str(folder)!r} lack or misstate {error}: fetch it again"
            ) from error


def _read_ace_step(folder: Path, index: dict[str, Any]) -> PipelineInfo:
    vae, transformer = _read_config(folder, "vae"), _read_config(folder, "transformer")
    turbo = bool(transformer.get("is_turbo")) or transformer.get("model_version") == "turbo"
    return PipelineInfo(
        "AceStepPipeline", int(vae["sampling_rate"]), int(vae["audio_channels"]), *ACE_STEP_RANGE_S,
        supports_cfg=not turbo, supports_melody=all((index.get(name) or [None])[0] for name in COVER_COMPONENTS),
    )  # fmt: skip


def _read_stable_audio(folder: Path, index: dict[str, Any]) -> PipelineInfo:  # noqa: ARG001 - the shape of a reader
    vae, transformer = _read_config(folder, "vae"), _read_config(folder, "transformer")
    rate = int(vae["sampling_rate"])
    max_duration = seconds_of(int(transformer["sample_size"]) * math.prod(vae["downsampling_ratios"]), rate)
    return PipelineInfo("StableAudioPipeline", rate, int(vae["audio_channels"]), 0.0, max_duration, True, True)


def _read_stable_audio_3(folder: Path, index: dict[str, Any]) -> PipelineInfo:  # noqa: ARG001 - the shape of a reader
    vae, duration = _read_config(folder, "vae"), _read_config(folder, "duration_embedder")
    distilled = bool(read_json(folder / "scheduler" / "scheduler_config.json").get("stochastic_sampling"))
    rate, channels = int(vae["sampling_rate"]), int(vae["audio_channels"])
    return PipelineInfo("StableAudio3Pipeline", rate, channels, 0.0, float(duration["max_val"]), not distilled, True)


def _read_config(folder: Path, component: str) -> dict[str, Any]:
    return read_json(folder / component / "config.json")
