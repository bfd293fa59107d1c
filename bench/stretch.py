"""Timing, pitch, onsets and stereo image of ffmpeg's rubberband: `uv run python -m bench.stretch`.

Settings of the filter side by side. Impulses and a steady chord along four time maps whose rate changes within ±6 %
every 1.25 s; stereo music of Sketch's (five styles) at one rate, 3 % faster. Last line: one JSON object of what
`v2m.pipeline.alignment` uses.
"""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np

from v2m.analysis.rhythm import onset_strength
from v2m.core.timing import TimeMap
from v2m.core.types import Audio, Floats, Tags
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.pipeline import alignment
from v2m.pipeline.time_warp import MAX_STRETCH

RATE, SECONDS = 48_000, 17.0
PLANTED = np.arange(0.75, SECONDS - 1, 0.5)
CHORD = (65.0, 220.0, 277.0, 330.0, 660.0)
STYLES = ("ambient", "cinematic", "acoustic folk", "electronic", "jazz")
EXAMPLE = Path(__file__).parent.parent / "data" / "examples" / "bunny_wakes.mp4"
SETTINGS = [
    f"rubberband=transients={transients}:window={window}:channels={channels}"
    for transients, window in (("crisp", "standard"), ("mixed", "short"), ("smooth", "standard"), ("smooth", "short"))
    for channels in ("apart", "together")
]


def impulses() -> Audio:
    samples = np.zeros((2, int(SECONDS * RATE)), np.float32)
    for time in PLANTED:
        first = int(time * RATE)
        samples[:, first : first + 300] += 0.8 * np.exp(-np.arange(300) / 45) * (-1.0) ** np.arange(300)
    return Audio(samples, RATE)


def chord() -> Audio:
    t = np.arange(int(SECONDS * RATE)) / RATE
    wave = np.sum([0.1 * np.sin(2 * np.pi * tone * t) for tone in CHORD], axis=0)
    return Audio(np.stack([wave, wave]).astype(np.float32), RATE)


def make_time_map(seed: int) -> TimeMap:
    knots = np.arange(0, SECONDS + 1.25, 1.25)
    rates = np.random.default_rng(seed).uniform(1 - MAX_STRETCH, 1 + MAX_STRETCH, len(knots) - 1)
    return TimeMap(knots, np.concatenate([[0.0], np.cumsum(np.diff(knots) * rates)]))


def impulse_delays(seed: int) -> Floats:
    """Return the milliseconds by which impulses come too late."""
    time_map = make_time_map(seed)
    sound = np.abs(alignment.stretch_audio(impulses(), time_map, SECONDS).samples[0])
    loud = np.flatnonzero(sound > 0.15)
    measured = loud[np.diff(loud, prepend=-RATE) > 0.2 * RATE] / RATE
    expected = time_map.forward(PLANTED)
    return 1000 * (measured[: len(expected)] - expected[: len(measured)])


def purity(seed: int) -> float:
    """Return the share of a steady chord's power within 1.5 Hz of its tones."""
    sound = alignment.stretch_audio(chord(), make_time_map(seed), SECONDS).samples[0, 2 * RATE : 14 * RATE]
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    hertz = np.arange(len(power)) * RATE / len(sound)
    return float(power[np.any([np.abs(hertz - tone) <= 1.5 for tone in CHORD], axis=0)].sum() / power.sum())


def onset_and_width_ratio(music: Audio) -> tuple[float, float]:
    """Return the ratios, after to before, of the 60 strongest onsets' strength and of the stereo width."""
    copy = alignment.stretch_audio(music, TimeMap(np.array([0.0, 1.0]), np.array([0.0, 1 / 1.03])), SECONDS / 1.03)
    onsets = [float(np.sort(onset_strength(audio))[-60:].mean()) for audio in (copy, music)]
    sides = [audio.samples[0] - audio.samples[1] for audio in (copy, music)]
    middles = [audio.samples[0] + audio.samples[1] for audio in (copy, music)]
    widths = [float(np.sqrt(np.square(s).mean() / np.square(m).mean())) for s, m in zip(sides, middles, strict=True)]
    return onsets[0] / onsets[1], widths[0] / widths[1]


def main() -> None:
    clip = video.open(EXAMPLE)
    pieces = [Sketch(style=style).generate(clip, Tags(), 1).audio for style in STYLES]
    figures: dict[str, float] = {}
    print(f"{'filter':<62}{'earliest ms':>12}{'latest ms':>10}{'purity':>8}{'onsets':>8}{'width':>7}")
    for setting in SETTINGS:
        with patch.object(alignment, "FILTER", setting):
            delays = np.concatenate([impulse_delays(seed) for seed in range(4)])
            mean_purity = float(np.mean([purity(seed) for seed in range(4)]))
            onsets, width = np.mean([onset_and_width_ratio(piece) for piece in pieces], axis=0)
        timing = f"{delays.min():>12.1f}{delays.max():>10.1f}"
        print(f"{setting:<62}{timing}{mean_purity:>8.3f}{onsets:>8.2f}{width:>7.2f}", flush=True)
        if setting == alignment.FILTER:
            values = [round(float(value), 3) for value in (delays.min(), delays.max(), mean_purity, onsets, width)]
            figures = dict(zip(("earliest_ms", "latest_ms", "purity", "onsets", "width"), values, strict=True))
            print("  in use")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
