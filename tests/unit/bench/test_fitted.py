"""A codec fitted to music: read through the same door as any, and its codes tell what is heard."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.tiny import encodec as random
from bench.tiny import fitted
from v2m.frozen import encodec


def sounds(count: int = 6, seconds: int = 2) -> list[Tensor]:
    """Tones that begin and fade every quarter of a second, each in one of four heights and three loudnesses."""
    draw = torch.Generator().manual_seed(0)
    time = torch.arange(random.SAMPLE_RATE // 4) / random.SAMPLE_RATE
    found = []
    for _ in range(count):
        heights = 220.0 * 2 ** torch.randint(4, (4 * seconds,), generator=draw)
        levels = 0.5 * 0.3 ** torch.randint(3, (4 * seconds,), generator=draw)
        tones = levels[:, None] * torch.sin(6.2832 * heights[:, None] * time) * torch.exp(-8 * time)
        found.append(tones.flatten())
    return found


def told(codes: Tensor, spectra: Tensor) -> float:
    """Share of the variance of spectra (T, M) that the means of each first code tell."""
    means = torch.stack([spectra[codes == code].mean(dim=0) for code in codes])
    return 1 - float((spectra - means).var() / spectra.var())


def test_codes_of_a_fitted_codec_tell_more_of_the_sound_than_random_ones(tmp_path: Path) -> None:
    music = sounds()
    share = fitted.write(tmp_path / "fitted", music[:5])
    random.write(tmp_path / "random")
    assert share > 0.5
    spectra = fitted._spectrum(music[5])
    found = {}
    for name in ("fitted", "random"):
        codec = encodec.load(tmp_path / name, torch.device("cpu"))
        codes = codec.encode(music[5][None, None])[0]
        assert codes.shape == (4, len(spectra))
        found[name] = told(codes[0], spectra - spectra.mean(dim=0))
    assert found["fitted"] > found["random"] + 0.1, found
