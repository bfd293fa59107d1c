"""An embedder of your own: the share of the sound's energy in sixteen bands, for distances without weights.

    uv run python -m v2m evaluate scored/ --ground-truth music/ --embedding examples.custom_embedder.BandEnergies

An embedder is a class with a `name` and the method `embed_audio`. It inherits nothing. With `embed_text(texts)` or
`embed_video(video)`, in the same space, the tables also compare the music with its tags or its video.
"""

from __future__ import annotations

import numpy as np

from v2m.core.types import Audio
from v2m.evaluation.embedders import AudioEmbedding, split_windows, to_mono

WINDOW_S = 2.0  # seconds
BANDS = 16
LOWEST_HZ, HIGHEST_HZ = 40.0, 12_000.0


class BandEnergies:
    """Log energies of the spectrum in bands of equal width on a logarithmic scale."""

    name = "band-energies"  # stands in the tables

    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """Embeddings (W, 16), one for each window of two seconds."""
        windows = split_windows(to_mono(audio), round(WINDOW_S * audio.sample_rate))
        return AudioEmbedding(np.stack([_band_energies(window, audio.sample_rate) for window in windows]))


def _band_energies(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    power = np.abs(np.fft.rfft(samples)) ** 2 / len(samples)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1)
    band = np.digitize(np.fft.rfftfreq(len(samples), 1 / sample_rate), edges)
    return np.log([power[band == number + 1].sum() + 1e-10 for number in range(BANDS)])
