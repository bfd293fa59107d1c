"""Generated clips with known cuts, for the benchmarks.

Shots are taken from the example clip and from ffmpeg's test pictures, and joined frame by frame, so that the time of
every cut is known exactly. F frames, H height, W width.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from v2m.core.types import Pixels, Transition

WIDTH, HEIGHT = 256, 144
VISIBLE = 0.06  # the least mean absolute difference (full scale 1) between the two sides of a cut
SHORTEST = 8  # frames
EXAMPLE = Path(__file__).parent.parent / "data" / "examples" / "bunny_wakes.mp4"
EXAMPLE_SHOTS = ((0, 55), (55, 102), (129, 161), (161, 213), (261, 321), (321, 361), (361, 419))
TEST_PICTURES = (
    "testsrc2",
    "mandelbrot",
    "life=mold=10:life_color=#E07030:death_color=#204080:seed=3",
    "gradients=c0=#102060:c1=#F0C060:n=2:x0=0:y0=0:x1=255:y1=143:speed=0.05:seed=1",
    "gradients=c0=#E04020:c1=#203020:n=2:x0=90:y0=70:x1=200:y1=143:speed=0.08:type=radial:seed=2",
    "cellauto=rule=30:seed=5",
    "color=c=gray,noise=alls=60:allf=t:all_seed=3",
    "smptehdbars",
)


@dataclass(frozen=True)
class Clip:
    """A clip on disk: `cuts` are the seconds of the first frame of each new shot, `duration` in seconds."""

    path: Path
    cuts: tuple[float, ...]
    duration: float


@dataclass(frozen=True)
class Edit:
    """Editing of a clip: mean seconds of a `shot`, `jitter` from 0 (metronomic) to 1, `weak` cuts' share."""

    name: str
    fps: Fraction
    seconds: float
    shot: float
    jitter: float
    weak: float
    sound: bool = False


FILM, PAL, NTSC, THIRTY, FIFTY = Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50)
EDITS = (
    Edit("slow", PAL, 40, 10, 0.2, 0.0),
    Edit("calm", FILM, 30, 5, 0.6, 0.3, sound=True),
    Edit("steady", NTSC, 24, 3, 0.0, 0.0),
    Edit("plain", THIRTY, 20, 2.5, 0.5, 0.3),
    Edit("loose", FIFTY, 16, 2, 0.8, 0.3, sound=True),
    Edit("march", PAL, 16, 1, 0.0, 0.2),
    Edit("quick", THIRTY, 16, 0.9, 0.5, 0.3),
    Edit("trailer", FILM, 20, 0.6, 0.8, 0.2, sound=True),
    Edit("frantic", NTSC, 12, 0.5, 0.3, 0.0),
    Edit("jumps", THIRTY, 18, 2, 0.5, 0.8),
    Edit("short", FIFTY, 8, 1.5, 0.6, 0.3),
    Edit("long", PAL, 60, 4, 0.7, 0.4, sound=True),
)


def make(folder: Path, count: int = 12, seed: int = 0, edits: Sequence[Edit] = EDITS) -> list[Clip]:
    """Write `count` clips of 8 to 60 s: the `edits` in turn, another cutting for every `seed`."""
    folder.mkdir(parents=True, exist_ok=True)
    materials = _materials()
    clips = []
    for number in range(count):
        edit = edits[number % len(edits)]
        path = folder / f"{number:02d}_{edit.name}.mp4"
        random = np.random.default_rng([seed, number])
        lengths = _shot_lengths(edit, random)
        _encode(path, edit, _shots(materials, lengths, edit.weak, random))
        *cuts, duration = (float(int(end) / edit.fps) for end in np.cumsum(lengths))
        clips.append(Clip(path, tuple(cuts), duration))
    return clips


@dataclass(frozen=True)
class TransitionClip:
    """A clip on disk with hard cuts and other transitions, all true to the frame."""

    path: Path
    fps: Fraction
    cuts: tuple[float, ...]
    transitions: tuple[Transition, ...]


def make_transitions(folder: Path, count: int, seed: int, footage: Sequence[Path] = ()) -> Iterator[TransitionClip]:
    """Write `count` clips of six to nine shots joined by cuts, dissolves and fades, and yield each.

    The dissolves are those of ffmpeg's xfade, the fades of its fade filters, 0.3 to 2 s. Within shots are flashes of
    one to three frames, jolts of the camera that swing back, and distractors: pans, zooms, drifting light.
    `footage`: videos without cuts of which pieces are taken besides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    materials = _materials() + [
        piece for path in footage for piece in np.array_split(_decode("-i", str(path), "-frames:v", "300"), 3)
    ]
    for number in range(count):
        random = np.random.default_rng([seed, number, 7])
        yield _make_transition_clip(folder / f"{number:02d}.mp4", materials, random)


def _make_transition_clip(path: Path, materials: list[Pixels], random: np.random.Generator) -> TransitionClip:
    """Write one clip. A dissolve takes its length from both shots that it joins."""
    fps = (FILM, PAL, NTSC, FIFTY)[random.integers(4)]
    joins = [
        str(kind) for kind in random.choice(("cut", "dissolve", "fade"), int(random.integers(5, 9)), p=(0.4, 0.4, 0.2))
    ]
    overlaps = [round(random.uniform(0.3, 2.0) * fps) if join == "dissolve" else 0 for join in joins]
    lengths = [
        round(random.uniform(2.0, 4.0) * fps) + sum(pair) for pair in zip([0, *overlaps], [*overlaps, 0], strict=True)
    ]
    cuts, transitions, graph = [], [], []
    which, end, last = int(random.integers(len(materials))), 0, "s0"
    inputs: list[str] = []
    for index, length in enumerate(lengths):
        which = (which + int(random.integers(1, len(materials)))) % len(materials)
        overlap = overlaps[index - 1] if index else 0
        start = end - overlap
        frames = _shot(materials[which], length, random).copy()
        quiet = (overlap, length - (overlaps[index] if index < len(overlaps) else 0))
        transitions += [_shifted(event, start, fps) for event in _add_event(frames, quiet, random, fps)]
        raw = path.with_suffix(f".{index}.rgb")
        frames.tofile(raw)
        inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(fps), "-i", str(raw)]
        fades = []
        if index and joins[index - 1] == "fade":
            seconds, color = float(random.uniform(0.3, 1.5)), str(random.choice(("black", "white")))
            span = round(seconds * fps)
            graph[-1] = graph[-1].replace("null", f"fade=t=out:s={lengths[index - 1] - span}:n={span}:c={color}", 1)
            fades.append(f"fade=t=in:s=0:n={span}:c={color}")
            transitions.append(Transition("fade out", float((end - span) / fps), float(end / fps), 1.0))
            transitions.append(Transition("fade in", float(end / fps), float((end + span) / fps), 1.0))
        graph.append(f"[{index}]{','.join(fades) + ',' if fades else ''}null,settb=1/90000,fps={fps}[s{index}]")
        if overlap:
            transitions.append(Transition("dissolve", float(start / fps), float(end / fps), 1.0))
        elif index and joins[index - 1] == "cut":
            cuts.append(float(start / fps))
        end = start + length
    end = lengths[0]
    for index in range(1, len(lengths)):
        overlap, joined = overlaps[index - 1], f"j{index}"
        if overlap:
            times = f"duration={float(overlap / fps):.6f}:offset={float((end - overlap) / fps):.6f}"
            graph.append(f"[{last}][s{index}]xfade=transition=fade:{times}[{joined}]")
        else:
            graph.append(f"[{last}][s{index}]concat=n=2,settb=1/90000,fps={fps}[{joined}]")
        end, last = end - overlap + lengths[index], joined
    codec = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p", "-threads", "1")
    subprocess.run(
        _ffmpeg(*inputs, "-filter_complex", ";".join(graph), "-map", f"[{last}]", *codec, str(path)), check=True
    )
    for raw in path.parent.glob(f"{path.stem}.*.rgb"):
        raw.unlink()
    return TransitionClip(path, fps, tuple(cuts), tuple(sorted(transitions, key=lambda part: part.start)))


def _add_event(
    frames: Pixels, quiet: tuple[int, int], random: np.random.Generator, fps: Fraction
) -> Iterator[Transition]:
    """Add a flash, a jolt or a distractor between the frames `quiet` of a shot; yield what is true.

    Times are in frames, to be shifted.
    """
    low, high = quiet[0] + round(0.7 * fps), quiet[1] - round(0.9 * fps)
    at, kind = int(random.integers(low, max(low + 1, high))), random.random()
    if kind < 0.2:
        count = int(random.integers(1, 4))
        frames[at : at + count] = 255 - ((255 - frames[at : at + count]) * random.uniform(0.1, 0.4)).astype(np.uint8)
        yield Transition("flash", at, at + count, 1.0)
    elif kind < 0.4:
        count = max(4, round(0.24 * fps))
        moved = np.roll(frames[at], WIDTH // 8, 1)
        if np.abs(moved - frames[at].astype(float)).mean() < VISIBLE * 255:
            return
        for step in range(count):
            offset = 0.25 * WIDTH * np.sin(3 * np.pi * (step + 1) / (count + 1)) * (1 - step / count)
            frames[at + step] = np.roll(frames[at + step], round(offset), 1)
        yield Transition("motion", at, at + count, 1.0)
    elif kind < 0.6:
        light = 1 + random.uniform(0.2, 0.4) * np.sin(np.linspace(0, random.uniform(2, 6), len(frames)))
        for frame, gain in zip(frames, light / light.max(), strict=True):
            frame[:] = (frame * gain).astype(np.uint8)
    elif kind < 0.8:
        for step, frame in enumerate(frames):
            frame[:] = np.roll(frame, int(WIDTH * 0.3 * step / fps), 1)


def _shifted(event: Transition, start: int, fps: Fraction) -> Transition:
    return replace(event, start=float((start + event.start) / fps), end=float((start + event.end) / fps))


def _materials() -> list[Pixels]:
    """Return footage without cuts, (F, H, W, 3) each."""
    example = _decode("-i", str(EXAMPLE))
    pictures = [_decode("-f", "lavfi", "-i", _sized(source), "-frames:v", "100") for source in TEST_PICTURES]
    return [example[first:last] for first, last in EXAMPLE_SHOTS] + pictures


def _sized(source: str) -> str:
    name, comma, filters = source.partition(",")
    return f"{name}{':' if '=' in name else '='}size={WIDTH}x{HEIGHT}{comma}{filters}"


def _decode(*source: str) -> Pixels:
    options = ("-vf", f"scale={WIDTH}:{HEIGHT}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    data = subprocess.run(_ffmpeg(*source, *options), capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def _ffmpeg(*arguments: str) -> list[str]:
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *arguments]


def _shot_lengths(edit: Edit, random: np.random.Generator) -> list[int]:
    """Return the frames of each shot, which sum to the clip's length."""
    total, mean = round(edit.seconds * edit.fps), float(edit.shot * edit.fps)
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(max(SHORTEST, round(mean * (1 + edit.jitter * random.uniform(-1, 1)))))
    lengths[-1] -= sum(lengths) - total
    if lengths[-1] < SHORTEST:
        rest = lengths.pop()
        lengths[-1] += rest
    return lengths


def _shots(materials: list[Pixels], lengths: list[int], weak: float, random: np.random.Generator) -> Iterator[Pixels]:
    """Yield the shots; a weak cut stays in its footage and only changes crop, light and time."""
    which, last = int(random.integers(len(materials))), None
    for length in lengths:
        if random.random() >= weak:
            which = (which + int(random.integers(1, len(materials)))) % len(materials)
        shot = _shot(materials[which], length, random)
        for _ in range(20):
            if last is None or np.abs(shot[0] - last.astype(float)).mean() >= VISIBLE * 255:
                break
            shot = _shot(materials[which], length, random)
        last = shot[-1]
        yield shot


def _shot(material: Pixels, length: int, random: np.random.Generator) -> Pixels:
    """Return `length` frames of `material`, back and forth, with a moving crop and colored light."""
    around = 2 * len(material) - 2
    index = (int(random.integers(around)) + np.arange(length)) % around
    index = np.minimum(index, around - index)
    size = random.uniform(0.4, 1.0)
    low, high = random.uniform(0, 1 - size, (2, 2))
    light = np.linspace(0, 1, 256)[:, None] * random.uniform(0.6, 1.0, 3) * 255
    table = light.round().astype(np.uint8)
    frames = np.empty((length, HEIGHT, WIDTH, 3), np.uint8)
    for frame, source, drift in zip(frames, index, np.linspace(0, 0.5, length), strict=True):
        top, left = low + (high - low) * drift
        rows = ((top + np.linspace(0, size, HEIGHT, endpoint=False)) * HEIGHT).astype(int)
        columns = ((left + np.linspace(0, size, WIDTH, endpoint=False)) * WIDTH).astype(int)
        seen = material[source][rows][:, columns]
        frame[:] = np.stack([table[seen[..., channel], channel] for channel in range(3)], -1)
    return frames


def _encode(path: Path, edit: Edit, shots: Iterator[Pixels]) -> None:
    sound = ("-f", "lavfi", "-i", "sine=330:beep_factor=4,volume=0.3") if edit.sound else ()
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(edit.fps), "-i", "-")
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p", "-c:a", "aac")
    command = _ffmpeg(*source, *sound, *codecs, "-shortest", str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for shot in shots:
            encoder.stdin.write(shot.tobytes())
        encoder.stdin.close()
        assert encoder.wait() == 0, f"ffmpeg could not write {path}"
