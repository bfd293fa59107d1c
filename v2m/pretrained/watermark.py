"""Watermarks: AudioSeal hides 16 bits in sound, inaudibly, and finds them again.

San Roman et al., "Proactive Detection of Voice Cloning with Localized Watermarking" (2024). Its networks read mono at
16 kHz: what they add is brought to the rate of the music, and is the same in all channels. The package's own loader is
not used: it downloads by itself, and unpickles any code. B batch, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v2m.core.errors import DependencyError, error_text, require_packages
from v2m.core.lazy_model import choose_device
from v2m.core.types import Audio, WeightsInfo
from v2m.media.audio import resample
from v2m.pretrained import weights
from v2m.pretrained.audiocraft_package import SETTINGS_GLOBALS
from v2m.pretrained.safe_load import check_finite, read_pickle

REPOSITORY, LICENSE = "facebook/audioseal", "mit"
GENERATOR, DETECTOR = "generator_base.pth", "detector_base.pth"
FILES = (GENERATOR, DETECTOR, "*.yaml|")
CARDS = {GENERATOR: "audioseal_wm_16bits", DETECTOR: "audioseal_detector_16bits"}  # the package's own descriptions
SAMPLE_RATE, NUM_BITS = 16_000, 16
MESSAGE = 0x5632  # "V2" in ASCII: that v2m made it, and nothing about whom
BLOCK_SAMPLES = 30 * SAMPLE_RATE  # in which long sound is read


@dataclass(frozen=True)
class WatermarkReport:
    """Share of the samples, 0–1, in which a watermark is found, and the 16 bits that are read there."""

    share: float
    message: int

    @property
    def is_own(self) -> bool:
        """True where most of the sound is marked, with the bits of v2m."""
        return self.share > 0.5 and self.message == MESSAGE


def fetch() -> WeightsInfo:
    """Return the folder of both networks, downloaded if need be; the package is looked for first."""
    require_packages("audioseal")
    return weights.fetch(REPOSITORY, FILES, license=LICENSE)


class Watermark:
    """Generator and detector on a device. `weights` are those of both."""

    def __init__(self, generator: Any, detector: Any, device: torch.device, info: WeightsInfo) -> None:
        self._generator, self._detector = generator.to(device).eval(), detector.to(device).eval()
        self._device, self.weights = device, info

    @classmethod
    def load(cls, info: WeightsInfo, device: str = "auto") -> Watermark:
        """Load both networks from a folder that `fetch` returned; DependencyError where they are others."""
        from audioseal.builder import AudioSealDetectorConfig, AudioSealWMConfig, create_detector, create_generator

        generator = _load_network(info.folder / GENERATOR, AudioSealWMConfig, create_generator)
        detector = _load_network(info.folder / DETECTOR, AudioSealDetectorConfig, create_detector)
        return cls(generator, detector, choose_device(device), info)

    @torch.inference_mode()
    def embed(self, audio: Audio, message: int = MESSAGE) -> Audio:
        """Return the audio with `message` in it: 16 bits, the highest first."""
        from audioseal.libs.moshi.utils.compile import no_compile

        bits = torch.tensor([[message >> place & 1 for place in reversed(range(NUM_BITS))]], device=self._device)
        with no_compile():  # which takes longer than the work, and needs a C++ compiler
            parts = [self._generator.get_watermark(part, message=bits)[0, 0] for part in self._blocks(audio)]
        mark = resample(Audio(torch.cat(parts).cpu().numpy()[None], SAMPLE_RATE), audio.sample_rate).samples[0]
        count = min(len(audio), len(mark))
        samples = audio.samples.copy()
        samples[:, :count] += mark[:count]
        return Audio(samples, audio.sample_rate)

    @torch.inference_mode()
    def detect(self, audio: Audio) -> WatermarkReport:
        """Return how much of the audio is marked, and the message in it."""
        from audioseal.libs.moshi.utils.compile import no_compile

        found, votes, total = 0, torch.zeros(NUM_BITS), 0
        for part in self._blocks(audio):
            with no_compile():
                share, bits = self._detector.detect_watermark(part)
            found, total = found + float(share) * part.shape[-1], total + part.shape[-1]
            votes += (2.0 * bits[0].float().cpu() - 1.0) * part.shape[-1]
        message = sum(
            1 << place for place, vote in zip(reversed(range(NUM_BITS)), votes.tolist(), strict=True) if vote > 0
        )
        return WatermarkReport(found / total, message)

    def _blocks(self, audio: Audio) -> list[Tensor]:
        """Blocks (1, 1, N) of the mean of all channels at 16 kHz."""
        mono = audio.samples.mean(axis=0, keepdims=True).astype(np.float32)
        wave = resample(Audio(mono, audio.sample_rate), SAMPLE_RATE).samples[:1]
        return [
            torch.from_numpy(np.array(wave[None, :, start : start + BLOCK_SAMPLES])).to(self._device)
            for start in range(0, wave.shape[1], BLOCK_SAMPLES)
        ]


def _load_network(path: Path, config_class: Any, create: Callable[[Any], Any]) -> Any:
    """Build the network that the card beside a file, or in the package, describes, and load its weights."""
    from audioseal.loader import (
        AudioSeal,
        convert_state_dict_for_scriptable_model,
        load_local_model_config,
        load_state_dict,
    )
    from omegaconf import OmegaConf

    own = path.with_suffix(".yaml")
    card: Any = OmegaConf.load(own) if own.is_file() else load_local_model_config(CARDS[path.name])
    values: Any = OmegaConf.to_container(card)
    package: Mapping[str, Any] = read_pickle(path, SETTINGS_GLOBALS)
    state = package.get("best_state", package)
    state = state.get("model", state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no weights of AudioSeal: fetch {REPOSITORY} again")
    check_finite(dict(state), f"{str(path)!r}")
    try:
        network = create(AudioSeal.parse_config(values, config_type=config_class, nbits=NUM_BITS))
        load_state_dict(network, convert_state_dict_for_scriptable_model(dict(state)))
    except (RuntimeError, AssertionError, KeyError, AttributeError) as error:
        raise DependencyError(f"{str(path)!r} is no network of AudioSeal ({error_text(error, 200)})") from error
    return network.requires_grad_(False)
