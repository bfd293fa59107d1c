"""Cut v2m's SoundFont from MuseScore_General: `python -m tools.make_soundfont MuseScore_General_Full.sf2 OUT.sf3`.

The source is in Debian's package musescore-general-soundfont-lossless (version 0.2.1; `apt-get download`, `dpkg -x`).
The result has the General MIDI programs and kits of `v2m.sketch.instruments`. Of each it keeps samples some semitones
apart and seconds of those that are not looped; stereo stays where it matters. Samples are encoded by the ffmpeg of
imageio-ffmpeg: the same source and ffmpeg give the same bytes.
"""

from __future__ import annotations

import argparse
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from v2m.sketch.instruments import INSTRUMENTS, KITS
from v2m.sketch.perform.soundfont import (
    DRUM_BANK,
    PAN,
    SAMPLE_MODES,
    START_OFFSET,
    START_OFFSET_COARSE,
    PresetKey,
    Range,
    Region,
    Sample,
    SoundFont,
    encode_soundfont,
)

FADE_S = 0.5  # at the end of a sample that is cut short
LOOP_MARGIN = 64  # samples kept after a loop
DRUM_KEYS = (35, 81)
INFO = {
    "INAM": "v2m, cut from MuseScore_General_HQ 0.2.1",
    "IENG": "S. Christian Collins; Fluid: Frank Wen, Michael Cowgill; VSCO 2 CE strings: Versilian Studios",
    "ICOP": "MIT, parts CC0 and public domain; see LICENSE-soundfont.txt",
}


class Cut(NamedTuple):
    """What is kept of a preset: samples `step` semitones apart, `seconds` of each, `quality` of the encoder."""

    step: int = 3
    seconds: float = 5.0
    quality: float = 1.0
    mono: bool = False  # the left samples alone, in the middle
    unlooped: bool = False  # ends after `seconds` instead of a loop


CUTS: dict[PresetKey, Cut] = {
    (0, 0): Cut(step=5, seconds=6.0, quality=2.0, unlooped=True),
    (0, 44): Cut(step=6, mono=True),
    (0, 45): Cut(step=5, seconds=2.0, mono=True),
    (0, 48): Cut(step=4),
    (0, 49): Cut(step=4),
    (0, 89): Cut(step=12),
}
DROPPED = {1}  # programs for which a neighbor plays


def thin(regions: Iterable[Region], soundfont: SoundFont, cut: Cut) -> list[Region]:
    """Keep in each layer the regions whose roots are `cut.step` semitones apart, widened over those left out."""
    layers: dict[tuple[object, ...], list[Region]] = defaultdict(list)
    for region in regions:
        if not cut.mono or region.generators.get(PAN, 0) < 250:
            layers[*region.layer, region.velocities].append(region)
    result: list[Region] = []
    for layer in layers.values():
        layer.sort(key=lambda region: region.keys)
        roots = {region.keys: soundfont.sample(region.sample).root for region in layer}
        kept: list[Range] = []
        for keys, root in roots.items():
            if not kept or root - roots[kept[-1]] >= cut.step:
                kept.append(keys)
        widened: dict[Range, Range] = {}
        low = layer[0].keys[0]
        for index, keys in enumerate(kept):
            if index + 1 == len(kept):
                high = layer[-1].keys[1]
            elif kept[index + 1][0] == keys[1] + 1:
                high = keys[1]
            else:
                middle = (roots[keys] + roots[kept[index + 1]]) // 2
                high = min(max(keys[1], middle), kept[index + 1][1] - 1)
            widened[keys], low = (low, high), high + 1
        changed = ({PAN: 0} if cut.mono else {}) | ({SAMPLE_MODES: 0} if cut.unlooped else {})
        result += [
            replace(region, keys=widened[region.keys], generators={**region.generators, **changed})
            for region in layer
            if region.keys in widened
        ]
    return result


def length_needed(region: Region, sample: Sample, seconds: float) -> int:
    """Return the samples to keep for `region`: the loop, or `seconds` from its start offset on."""
    if region.generators.get(SAMPLE_MODES, 0) in {1, 3} and 0 <= sample.loop[0] < sample.loop[1]:
        return sample.loop[1] + LOOP_MARGIN
    start = 32768 * region.generators.get(START_OFFSET_COARSE, 0) + region.generators.get(START_OFFSET, 0)
    return start + int(seconds * sample.rate)


def encode(sample: Sample, length: int, quality: float) -> Sample:
    """Return the sample as Ogg Vorbis, faded out where it goes on after `length`."""
    data = np.array(sample.data[:length], np.int16)
    if length < len(sample.data) and length != sample.loop[1] + LOOP_MARGIN:
        fade = int(FADE_S * sample.rate)
        data[-fade:] = np.round(data[-fade:] * np.cos(np.linspace(0.0, np.pi / 2, fade)) ** 2)
    command = [get_ffmpeg_exe(), "-v", "error", "-f", "s16le", "-ar", str(sample.rate), "-ac", "1", "-i", "-"]
    command += ["-c:a", "libvorbis", "-q:a", str(quality), "-fflags", "+bitexact", "-flags", "+bitexact"]
    command += ["-map_metadata", "-1", "-f", "ogg", "-"]
    done = subprocess.run(command, input=data.tobytes(), capture_output=True, check=True)
    return replace(sample, data=done.stdout)


def main() -> None:
    """Cut the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    soundfont = SoundFont(arguments.source)
    wanted: list[PresetKey] = [(0, program) for program in INSTRUMENTS if program not in DROPPED]
    wanted += [(DRUM_BANK, kit) for kit in KITS]
    presets: dict[PresetKey, tuple[str, list[Region]]] = {}
    lengths: dict[int, int] = defaultdict(int)
    qualities: dict[int, float] = defaultdict(float)
    for key in wanted:
        cut = CUTS.get(key, Cut())
        lowest, highest = DRUM_KEYS if key[0] == DRUM_BANK else INSTRUMENTS[key[1]][1:]
        regions = [r for r in soundfont.regions(key) if r.keys[0] <= highest and r.keys[1] >= lowest]
        regions = regions if key[0] == DRUM_BANK else thin(regions, soundfont, cut)
        presets[key] = soundfont.preset_name(key), regions
        for region in regions:
            length = length_needed(region, soundfont.sample(region.sample), cut.seconds)
            lengths[region.sample] = max(lengths[region.sample], length)
            qualities[region.sample] = max(qualities[region.sample], cut.quality)
    samples = {index: encode(soundfont.sample(index), lengths[index], qualities[index]) for index in sorted(lengths)}
    sizes = {
        key: sum(len(samples[index].data) for index in {region.sample for region in regions})
        for key, (_, regions) in presets.items()
    }
    for key, size in sorted(sizes.items(), key=lambda item: -item[1])[:24]:
        print(f"{size / 1e6:6.2f} MB  {key}  {presets[key][0]}")  # noqa: T201
    data = encode_soundfont(presets, samples, INFO)
    arguments.target.write_bytes(data)
    print(f"{len(data) / 1e6:6.2f} MB in {len(samples)} samples")  # noqa: T201


if __name__ == "__main__":
    main()
