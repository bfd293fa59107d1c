"""Distances between the styles of Sketch, against distances between two seeds of one style.

    uv run python -m bench.styles [CLIP]

Each style composes for the same clip with several seeds. Every piece becomes a vector of audio features:
log-mel spectrum (mean and spread of 24 bands), spectral centroid and flatness (mean, spread), flux, onsets a second,
percussive share (energy of what stands out in time against what stands out in pitch: median filtering after
FitzGerald 2010), dynamic range, stereo width, and the shape of the chroma (entropy, strongest class, major against
minor third). Each feature is standardized over all pieces, each group weighs the same, and the distance is Euclidean.
Pitch classes are taken relative to the strongest one, so that a change of key alone is no distance.

The last line is JSON: `min_distance`, the smallest mean distance between the pieces of two styles; `seed_distance`, the
mean distance between two seeds of one style; `reproducible`, whether a second run of a piece gave the same bytes;
`nearest_right`, the share of pieces whose nearest other piece is of their own style.
"""

from __future__ import annotations

import argparse
import json
import time
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from v2m.core.types import Floats, Tags, Video
from v2m.generators.sketch import Sketch
from v2m.media import video as video_io
from v2m.sketch.styles import STYLES

EXAMPLE = Path(__file__).parents[1] / "data" / "examples" / "bunny_wakes.mp4"
SEEDS = (1, 2, 3)
RATE, WINDOW, HOP, BANDS = 48000, 2048, 1024, 24


def spectrogram(mono: Floats) -> Floats:
    """Power (frames, bins)."""
    frames = sliding_window_view(mono, WINDOW)[::HOP] * np.hanning(WINDOW)
    return np.abs(np.fft.rfft(frames)) ** 2 + 1e-12


def mel(power: Floats) -> Floats:
    """Log energy (frames, BANDS) in triangular bands even on the mel scale, 40 Hz to 16 kHz."""
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, high = 2595 * np.log10(1 + np.array([40.0, 16000.0]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    rising = (hertz[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - hertz[:, None]) / np.diff(edges)[1:]
    weights = np.clip(np.minimum(rising, falling), 0, None)
    return 10 * np.log10(power @ weights + 1e-10)


def percussive_share(power: Floats, width: int = 17) -> float:
    """Energy share of bins that stand out from their neighbors in frequency less than from those in time."""
    trimmed = power[:, :400]
    in_time = np.median(sliding_window_view(trimmed, width, axis=0), axis=-1)[:, width // 2 : -(width // 2)]
    in_pitch = np.median(sliding_window_view(trimmed, width, axis=1), axis=-1)[width // 2 : -(width // 2)]
    inner = trimmed[width // 2 : -(width // 2), width // 2 : -(width // 2)]
    return float((inner * (in_pitch > in_time)).sum() / inner.sum())


def chroma(power: Floats) -> Floats:
    """Share of each pitch class (12,), the strongest first."""
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    inside = (hertz > 180) & (hertz < 2000)
    classes = np.rint(12 * np.log2(hertz[inside] / 440)).astype(int) % 12
    shares = np.bincount(classes, np.sqrt(power[:, inside]).sum(0), 12)
    shares = np.roll(shares, -int(np.argmax(shares)))
    return shares / shares.sum()


def features(sound: np.ndarray) -> list[Floats]:
    """Groups of features of stereo sound (2, N), brought to one loudness first."""
    sound = sound.astype(float) / np.sqrt((sound.astype(float) ** 2).mean())
    power = spectrogram(sound.mean(0))
    bands = mel(power)
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    centroid = np.log2((power @ hertz) / power.sum(1))
    flatness = np.log(power).mean(1) - np.log(power.mean(1))
    rise = np.maximum(0, np.diff(bands, axis=0)).mean(1)
    peaks = (rise[1:-1] > rise[:-2]) & (rise[1:-1] >= rise[2:]) & (rise[1:-1] > rise.mean() + rise.std())
    level = np.percentile(10 * np.log10(power.sum(1)), [10, 50, 95])
    pitch = chroma(power)
    side, middle = np.abs(sound[0] - sound[1]).mean(), np.abs(sound.sum(0)).mean()
    return [
        bands.mean(0),
        bands.std(0),
        np.array([centroid.mean(), centroid.std(), flatness.mean(), flatness.std()]),
        np.array([rise.mean(), rise.std(), peaks.sum() * RATE / sound.shape[1], percussive_share(power)]),
        np.array([level[2] - level[0], level[1] - level[0], side / middle]),
        np.array([-(pitch * np.log(pitch)).sum(), pitch[0], pitch[3] - pitch[4]]),
    ]


def standardize(pieces: list[list[Floats]]) -> Floats:
    """(pieces, features): each feature with mean 0 and deviation 1, each group of the same total weight."""
    groups = [np.array([piece[group] for piece in pieces]) for group in range(len(pieces[0]))]
    return np.hstack([(g - g.mean(0)) / (g.std(0) + 1e-9) / np.sqrt(g.shape[1] * len(groups)) for g in groups])


def compare(clip: Video) -> dict[str, object]:
    names = [name for name in STYLES for _ in SEEDS]
    pieces, digests = [], []
    for name in STYLES:
        for seed in SEEDS:
            samples = Sketch(name).generate(clip, Tags(), seed).audio.samples
            pieces.append(features(samples))
            digests.append(sha256(samples.tobytes()).digest())
    repeated = sha256(Sketch(names[0]).generate(clip, Tags(), SEEDS[0]).audio.samples.tobytes()).digest()
    vectors = standardize(pieces)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    count, styles = len(SEEDS), list(STYLES)
    blocks = distances.reshape(len(styles), count, len(styles), count).mean(axis=(1, 3))
    own = np.array(
        [distances[k : k + count, k : k + count].sum() / (count * (count - 1)) for k in range(0, len(names), count)]
    )
    print(f"{'style':14s} two seeds   nearest other style")
    for place, name in enumerate(styles):
        others = np.where(np.arange(len(styles)) == place, np.inf, blocks[place])
        print(f"{name:14s} {own[place]:9.2f}   {styles[int(np.argmin(others))]} at {others.min():.2f}")
    nearest = np.argmin(distances + np.diag(np.full(len(names), np.inf)), axis=1)
    return {
        "styles": len(styles),
        "min_distance": round(min(float(blocks[a, b]) for a, b in combinations(range(len(styles)), 2)), 3),
        "seed_distance": round(float(own.mean()), 3),
        "mean_distance": round(float(np.mean([blocks[a, b] for a, b in combinations(range(len(styles)), 2)])), 3),
        "nearest_right": round(float(np.mean([names[n] == name for n, name in zip(nearest, names, strict=True)])), 3),
        "different_pieces": len(set(digests)),
        "reproducible": repeated == digests[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=EXAMPLE)
    start = time.perf_counter()
    result = compare(video_io.open(parser.parse_args().clip))
    print(f"{len(STYLES) * len(SEEDS) + 1} pieces in {time.perf_counter() - start:.0f} s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
