"""Tempo, key and beats measured in music whose own are known: `python -m bench.listening`.

Tempo and key: on 28 tracks that ACE-Step 1.5 wrote, against those that it was asked for (package immich-memories-music
0.1.0, MIT; `--tracks FOLDER` where it is unpacked elsewhere than in this environment). A tempo is right within 4 %, a
key if tonic and mode are. `tempo_hinted` is with the tempo asked for as a hint.

Beats: a piece of 26 s in each style of Sketch, in each `--soundfont`; F-measure of beats within ±70 ms from 5 s on
against those of the plan, with the plan's tempo as a hint, as `v2m` has the tags' (and without, as `*_no_hint`). The
audio of pieces is kept in `--cache` by a hash of the code and of the SoundFont.

Last line: one JSON object; `beat_f_banks` is the mean of the SoundFont with the lowest.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.align_to_cuts import f_measure
from bench.sketch_pieces import CACHE, RATE, sketch_pieces
from v2m.analysis.key_tempo import estimate_key
from v2m.analysis.rhythm import track_beats
from v2m.core.types import Tags
from v2m.media import audio
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT

TRACK = re.compile(r"^\s*(\w+\.opus)\s+(\d+) bpm\s+(\w+ \w+)", re.M)


@dataclass(frozen=True)
class Track:
    """A track, and the tempo and key that it was asked for."""

    path: Path
    tempo: float
    key: str


def ace_step_tracks(folder: Path | None) -> list[Track]:
    """Return the tracks of the package, which is installed or unpacked in `folder`."""
    if folder is None:
        spec = find_spec("immich_memories_music")
        if spec is None or spec.origin is None:
            raise SystemExit("install the package immich-memories-music==0.1.0, or give --tracks FOLDER")
        folder = Path(spec.origin).parents[1]
    (table,) = folder.rglob("LICENSE-MUSIC")
    paths = {path.name: path for path in folder.rglob("*.opus")}
    return [Track(paths[name], float(tempo), key) for name, tempo, key in TRACK.findall(table.read_text())]


def measure_tracks(tracks: list[Track]) -> dict[str, float]:
    """Print each track's tempo and key, and return the numbers of those that are right."""
    right = {"tempo": 0, "tempo_hinted": 0, "key": 0}
    for track in tracks:
        sound = audio.load(track.path, RATE, 600.0)
        tempi = [beats.tempo if (beats := track_beats(sound, hint)) else 0.0 for hint in (None, track.tempo)]
        key = estimate_key(sound)
        found = [*(abs(tempo / track.tempo - 1) <= 0.04 for tempo in tempi), key == Tags(key=track.key).tonic_and_mode]
        for name, is_right in zip(right, found, strict=True):
            right[name] += int(is_right)
        marks = "".join("+" if is_right else "-" for is_right in found)
        print(f"{marks} {track.path.name:34s}{track.tempo:6.0f} {tempi[0]:6.1f} {tempi[1]:6.1f}  {track.key} {key}")
    return {**right, "tracks": len(tracks)}


def measure_soundfont(soundfont: Path, cache: Path) -> tuple[float, float]:
    """Print the F-measure of each style and return the means, with and without a hint."""
    rows = []
    for piece in sketch_pieces(soundfont, cache):
        beats = piece.beats
        tracks = [track_beats(piece.sound, hint) for hint in (piece.tempo, None)]
        rows.append([f_measure(track.beats[track.beats >= 5], beats[beats >= 5]) if track else 0.0 for track in tracks])
        print(
            f"{soundfont.name:28s} {piece.style:14s} {rows[-1][0]:5.2f}  without a hint {rows[-1][1]:5.2f}", flush=True
        )
    hinted, alone = np.mean(rows, axis=0)
    return round(float(hinted), 3), round(float(alone), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=Path)
    parser.add_argument("--soundfont", type=Path, action="append", help="several times; else the default one alone")
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    result: dict[str, object] = dict(measure_tracks(ace_step_tracks(args.tracks)))
    banks = {path.stem: measure_soundfont(path, args.cache) for path in args.soundfont or [DEFAULT_SOUNDFONT]}
    result["beat_f_banks"] = min(hinted for hinted, _ in banks.values())
    result["beat_f_banks_no_hint"] = min(alone for _, alone in banks.values())
    result["soundfonts"] = banks
    print(json.dumps(result))


if __name__ == "__main__":
    main()
