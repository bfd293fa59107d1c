"""Common parts of running the pipelines: seeded noise, audio to and from latents, progress.

B candidates, C channels, N samples, W latent channels, T latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from v2m.core.compat import execution_device
from v2m.core.types import ProgressFn


def seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator for each candidate, the same in a batch as alone; on the CPU, so the same on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@contextmanager
def fixed_global_seed() -> Iterator[None]:
    """Seed torch's global generator inside: some pipelines draw from it when they encode audio."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def latent_frames(num_samples: int, hop_length: int) -> int:
    """Number of latent frames that cover `num_samples`."""
    return math.ceil(num_samples / hop_length)


def to_encoder_input(pipeline: Any, audio: Tensor, num_samples: int) -> Tensor:
    """Cut or zero-pad `audio` (…, N) to `num_samples`, on the encoder's device and in its dtype."""
    audio = audio[..., :num_samples]
    audio = torch.nn.functional.pad(audio, (0, num_samples - audio.shape[-1]))
    return audio.to(execution_device(pipeline), pipeline.vae.dtype)


@torch.inference_mode()
def decode_latents(pipeline: Any, latents: Tensor, num_samples: int) -> Tensor:
    """Decode (B, W, T) → (B, C, `num_samples`) float32 on the CPU, one by one; then offload if configured."""
    waves = [pipeline.vae.decode(latent[None]).sample[..., :num_samples].float().cpu() for latent in latents]
    pipeline.maybe_free_model_hooks()
    return torch.cat(waves)


def step_progress(progress: ProgressFn, steps: int) -> Callable[..., dict[str, Any]]:
    """Make the callback that a pipeline calls at the end of each of `steps`."""

    def step_done(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        progress((step + 1) / steps)
        return {}

    return step_done
