"""MERT, frozen features of music: 75 frames a second of sound at 24 kHz.

Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training" (2023). The published
checkpoint brings code of its own; without its optional inputs and norms, which m-a-p/MERT-v1-95M does not use, its
model is transformers' HuBERT, and its weights are loaded into that.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchaudio.functional import resample as resample_sinc
from transformers import HubertModel

from v2m.core.errors import DependencyError
from v2m.mappings.audiocraft import MERT_NAME
from v2m.pretrained.safe_load import check_finite, read_json, read_state_dict
from v2m.pretrained.transformers_loader import CPU, load_model

MODEL_TYPE = "mert_model"
PLAIN_SETTINGS = {"feature_extractor_cqt": False, "deepnorm": False, "feat_proj_layer_norm": True}
# the filter of the package julius, by which audiocraft resamples
SINC_ZEROS, SINC_ROLLOFF, PAD_PERIODS = 24, 0.945, 32


class Mert:
    """MERT on a device, in float32; `dim` is that of a frame.

    The sound is not normalized, as in audiocraft.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.dim: int = model.config.hidden_size
        self.sample_rate: int = getattr(model.config, "sample_rate", 24_000)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        *,
        config: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> Mert:
        """Load a checkpoint in the layout of m-a-p/MERT-v1-95M; DependencyError where it is another model's."""
        config = read_json(folder / "config.json") if config is None else config
        if config.get("model_type") not in (MODEL_TYPE, "hubert"):
            raise DependencyError(f"{str(folder)!r} is no MERT: its config.json says {config.get('model_type')!r}")
        other = {name: config[name] for name, value in PLAIN_SETTINGS.items() if config.get(name, value) != value}
        if (config.get("attention_relax") or -1) > 0:
            other["attention_relax"] = config["attention_relax"]
        if other:
            listed = ", ".join(f"{name} {value}" for name, value in other.items())
            raise DependencyError(f"{str(folder)!r} is a MERT with {listed}: give {MERT_NAME}")
        state = read_state_dict(folder) if state is None else state
        check_finite(state, f"MERT ({str(folder)!r})")
        settings = {name: value for name, value in config.items() if name not in ("auto_map", "architectures")}
        settings["model_type"] = "hubert"
        model: Any = load_model(HubertModel, folder, CPU, description="MERT", config=settings, state=state)
        return cls(model.to(device=device, dtype=torch.float32))

    @torch.inference_mode()
    def encode(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Return the last layer's features (B, T, `dim`) of mono sound (B, N), ±1, at `sample_rate`."""
        wave = resample(wave.to(self._model.device, torch.float32), sample_rate, self.sample_rate)
        return self._model(wave).last_hidden_state


def resample(wave: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Resample (B, N) as audiocraft does.

    Returns N · `new_rate` / `old_rate` samples, rounded down; beyond the ends their values hold.
    """
    if old_rate == new_rate:
        return wave
    period = old_rate // gcd(old_rate, new_rate)
    pad = PAD_PERIODS * period
    padded = functional.pad(wave[:, None], (pad, pad), mode="replicate")[:, 0]
    out = resample_sinc(padded, old_rate, new_rate, lowpass_filter_width=SINC_ZEROS, rolloff=SINC_ROLLOFF)
    first, count = pad * new_rate // old_rate, wave.shape[-1] * new_rate // old_rate
    return out[:, first : first + count]
