"""What all pipelines have in common while they run: noise by seed, sound in and out of latents.

B takes, C channels, N samples, W latent channels, T latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from v2m.core.types import ProgressFn


def seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One for each take, so that a take is the same beside others as alone; on the CPU, so on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@contextmanager
def fixed_global_seed() -> Iterator[None]:
    """The global random numbers begin anew inside: some pipelines draw from them when they encode sound."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def latent_frames(num_samples: int, hop_length: int) -> int:
    """Latent frames that cover `samples`."""
    return math.ceil(num_samples / hop_length)


def to_encoder_input(pipeline: Any, audio: Tensor, num_samples: int) -> Tensor:
    """`sound` (…, N) cut to `samples` or with silence behind it, where the pipeline's encoder takes it."""
    audio = audio[..., :num_samples]
    audio = torch.nn.functional.pad(audio, (0, num_samples - audio.shape[-1]))
    return audio.to(pipeline._execution_device, pipeline.vae.dtype)


@torch.inference_mode()
def decode_latents(pipeline: Any, latents: Tensor, num_samples: int) -> Tensor:
    """(B, W, T) → (B, C, `samples`) float32 on the CPU, take by take; what was on the device by turns is taken off."""
    sound = [pipeline.vae.decode(each[None]).sample[..., :num_samples].float().cpu() for each in latents]
    pipeline.maybe_free_model_hooks()
    return torch.cat(sound)


def step_progress(progress: ProgressFn, steps: int) -> Callable[..., dict[str, Any]]:
    """What a pipeline calls at the end of each of `steps`."""

    def told(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        progress((step + 1) / steps)
        return {}

    return told
