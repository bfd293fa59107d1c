"""Arithmetic of training the music language model, by its sizes, and what GPUs can do of it.

A product of (M, N) with (N, O) counts 2 · M · N · O operations, and the backward pass twice the forward. Norms, softmax
and the conditioner (less than 1 % beside MusicGen-small) do not count, nor does what is computed anew to save memory.

B clips, T steps, S condition tokens, D width, I width inside the feed-forward, K codebooks, V entries.
"""

from __future__ import annotations

from v2m.models.lm import LMConfig

PEAK = {  # 10¹² operations a second in bfloat16, dense, by the makers' data sheets; the first name that is found counts
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}


def forward(config: LMConfig, clips: int, steps: int, tokens: int) -> int:
    """Operations of B clips of T steps, each with S tokens of condition across."""
    width, inner = config.dim, config.inner_dim
    own = 2 * steps * width * (3 * width + width) + 4 * steps * steps * width
    across = 2 * steps * width * 2 * width + 2 * tokens * width * 2 * width + 4 * steps * tokens * width
    through = 2 * steps * width * inner * 2
    heads = config.num_codebooks * 2 * steps * width * config.codebook_size
    return clips * (config.num_layers * (own + (across if config.cross_attention else 0) + through) + heads)


def training(config: LMConfig, clips: int, steps: int, tokens: int) -> int:
    """Operations of a step of training."""
    return 3 * forward(config, clips, steps, tokens)


def peak(device: str) -> float | None:
    """Operations a second that a GPU of that name can do at most; None where it is not known."""
    return next((1e12 * found for name, found in PEAK.items() if name.lower() in device.lower()), None)
