"""The records that packages exchange; nothing here reads a file.

F video frames, H height, W width, C channels, N audio samples. Times are seconds from the first shown frame unless a
name says otherwise; arrays are numpy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from v2m.core.errors import UsageError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
ConvertFn = Callable[[Pixels], Pixels]  # of frames (F, H, W, 3)

TEMPO_RANGE = (30.0, 300.0)
MIN_SPAN_S = 0.01  # seconds of music
UNKNOWN_CODEC = "unknown"  # of a stream that FFmpeg has no decoder for
_KEY = re.compile(r"^([A-Ga-g])[-\s]*(#|b|♯|♭|sharp|flat)?[-\s]*(major|minor|maj|min|dur|moll|m)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Audio:
    """Sound in memory: `samples` (C, N) float32, full scale ±1; `sample_rate` in Hz."""

    samples: NDArray[np.float32]
    sample_rate: int

    def __post_init__(self) -> None:
        assert self.samples.ndim == 2, f"samples must be (C, N), not {self.samples.shape}"

    @property
    def channels(self) -> int:
        return self.samples.shape[0]

    def __len__(self) -> int:
        return self.samples.shape[1]


@dataclass(frozen=True)
class Cut:
    """A hard change of shot; `strength` (0–1) is the difference of its sides, relative to this video."""

    time: float
    strength: float


@dataclass(frozen=True)
class Transition:
    """A change of the picture that is no cut, from `start` to `end` in seconds; `strength` 0–1.

    `kind`: "dissolve", "fade out" and "fade in" (to and from black or white), "flash", or "motion": sudden motion
    within a shot, which starts and ends at its peak.
    """

    kind: str
    start: float
    end: float
    strength: float


@dataclass(frozen=True)
class VisualFeatures:
    """Features measured from the frames at `fps` ≥ 10 per second; every curve is (F,) along `times`."""

    fps: float
    times: Floats
    brightness: Floats  # mean of luma, 0–1
    saturation: Floats  # mean of HSV saturation, 0–1
    contrast: Floats  # standard deviation of luma, 0–0.5
    motion: Floats  # mean absolute difference of luma to the frame before, per second; cuts are taken out
    flow: Floats  # how fast what is seen moves, in widths of the frame per second, whatever its contrast; without cuts
    hues: Floats  # (12,) share of colored pixels per 30° of hue from red on; sums to 1, or all 0 for a gray video
    warmth: float  # −1 (all blue) to 1 (all orange)
    cuts: tuple[Cut, ...]
    transitions: tuple[Transition, ...] = ()

    def crop(self, start: float, end: float) -> VisualFeatures:
        """Return the part in [start, end), timed from `start`; `hues` and `warmth` stay those of all."""
        keep = (self.times >= start) & (self.times < end)
        keep[int(np.argmin(np.abs(self.times - start)))] |= not keep.any()
        names = ("brightness", "saturation", "contrast", "motion", "flow")
        curves = {name: getattr(self, name)[keep] for name in names}
        cuts = tuple(Cut(cut.time - start, cut.strength) for cut in self.cuts if start < cut.time < end)
        inside = (part for part in self.transitions if part.start < end and part.end > start)
        transitions = tuple(replace(part, start=part.start - start, end=part.end - start) for part in inside)
        return replace(self, times=self.times[keep] - start, cuts=cuts, transitions=transitions, **curves)


class FrameSource(Protocol):
    """Reader of a `Video`'s pixels (`v2m.media.video`). Frames come upright, RGB, uint8."""

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: ConvertFn | None = None) -> Pixels:
        """Return the frames shown at `times`, (F, H, W, 3); `width` scales, keeping the aspect ratio.

        `convert` changes a few frames at a time to others of one size, so that the decoded ones need no memory.
        """
        ...

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:
        """Return the measured features; computed once."""
        ...


@dataclass(frozen=True)
class Stream:
    """One stream of the container, as the header gives it."""

    index: int
    kind: str  # video, audio, subtitle, attachment, data
    codec: str
    duration: float | None = None
    channels: int | None = None
    sample_rate: int | None = None
    language: str | None = None
    is_default: bool = False  # by its disposition


def select_audio(streams: Sequence[Stream], track: int | None = None) -> Stream | None:
    """Return the audio stream that is heard: the default one, else the first, of those with a known codec.

    `track` chooses another one, counted from 1 among the audio streams. Raises UsageError where there is none.
    """
    audio = [stream for stream in streams if stream.kind == "audio"]
    if track is not None:
        if not 1 <= track <= len(audio):
            raise UsageError(f"`mix.track` {track}: the video has {len(audio)} audio tracks, counted from 1")
        if audio[track - 1].codec == UNKNOWN_CODEC:
            raise UsageError(f"`mix.track` {track}: this audio track cannot be decoded; give another one")
        return audio[track - 1]
    decodable = [stream for stream in audio if stream.codec != UNKNOWN_CODEC]
    return next((stream for stream in decodable if stream.is_default), next(iter(decodable), None))


@dataclass(frozen=True)
class Video:
    """A probed video with lazy frames, from `v2m.media.video.open`, which refuses bad input."""

    path: Path
    container: str
    codec: str
    width: int  # pixels as shown, after rotation
    height: int
    rotation: int
    fps: float
    duration: float  # to the end of the last frame
    timestamps: Floats  # (F,) of every shown frame, from 0
    offset: float  # the container's own time at 0
    streams: tuple[Stream, ...]
    warnings: tuple[str, ...] = ()
    source: FrameSource | None = field(default=None, repr=False, compare=False)
    start: float = 0.0  # above 0 in a span of a longer file
    converted_path: Path | None = None  # of a file with the same pictures, where FFmpeg cannot read `path`

    @property
    def media_path(self) -> Path:
        """The file for FFmpeg to read."""
        return self.converted_path or self.path

    @property
    def audio_streams(self) -> tuple[Stream, ...]:
        return tuple(stream for stream in self.streams if stream.kind == "audio")

    def audio_track(self, track: int | None = None) -> Stream | None:
        """Return the audio stream to mix, measure and learn from, as `select_audio`."""
        return select_audio(self.streams, track)

    def frames(self, times: Sequence[float], width: int | None = None, convert: ConvertFn | None = None) -> Pixels:
        """Return the frames shown at `times` (seconds in this span), upright RGB (F, H, W, 3).

        `width` and `convert` are as in `FrameSource.frames_at`.
        """
        assert self.source is not None, "this Video was made without a frame source"
        return self.source.frames_at([self.start + time for time in times], width, convert)

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:
        """Return brightness, color, motion and cuts of this span, measured on first use."""
        assert self.source is not None, "this Video was made without a frame source"
        features = self.source.visual_features(progress)
        if self.start == 0 and features.times[-1] < self.duration:  # not a span, which may also end early
            return features
        return features.crop(self.start, self.start + self.duration)

    def crop(self, start: float | None = None, end: float | None = None) -> Video:
        """Return the span from `start` to `end`. Raise ValueError outside the video, or for less than 0.01 s."""
        low, high = start or 0.0, self.duration if end is None else min(end, self.duration)
        if low < 0 or low >= self.duration:
            raise ValueError(f"start {low:g} s lies outside the video (0 to {self.duration:.2f} s)")
        if high <= low:
            raise ValueError(f"end {high:g} s must lie after start {low:g} s")
        if (low, high) == (0.0, self.duration):
            return self
        if high - low < MIN_SPAN_S:
            raise ValueError(f"the span from {low:g} to {high:g} s is shorter than {MIN_SPAN_S:g} s: widen it")
        first, last = np.searchsorted(self.timestamps, [low + 1e-6, high])
        stamps = np.maximum(self.timestamps[max(first - 1, 0) : last] - low, 0.0)
        return replace(self, timestamps=stamps, duration=high - low, start=self.start + low)


def _split_words(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value or ()
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def filter_unwanted(words: Iterable[str], unwanted: Iterable[str]) -> list[str]:
    """Return `words` without those that contain an unwanted whole word, singular or plural.

    "guitar" and "guitars" rule out "electric guitars"; "rap" does not rule out "trap".
    """
    stems = [" ".join(word.casefold().split()) for word in unwanted]
    patterns = [rf"(?<!\w){re.escape(re.sub(r'(?<=.{3})s$', '', stem))}(?:e?s)?(?!\w)" for stem in stems if stem]
    return [word for word in words if not any(re.search(pattern, word.casefold()) for pattern in patterns)]


@dataclass(frozen=True)
class Tags:
    """Description of the music to write. Empty fields and None mean "not given".

    Args:
        caption: One sentence on what is seen.
        genres: Styles, strongest first; a list, or words with commas between.
        instruments: Instruments to be heard.
        moods: Words for the feeling.
        timbres: Words for the sound.
        tempo: Beats per minute, 30 to 300.
        key: Tonic and mode, as in "F# minor" or "Bb".
        vocals: Whether anybody sings.
        negative: What to avoid: genres, instruments, moods.
        lyrics: The words to be sung, each section under a header such as [verse].
    """

    caption: str = ""
    genres: Sequence[str] | str = ()
    instruments: Sequence[str] | str = ()
    moods: Sequence[str] | str = ()
    timbres: Sequence[str] | str = ()
    tempo: float | None = None
    key: str | None = None
    vocals: bool = False
    negative: Sequence[str] | str = ()
    lyrics: str = ""

    def __post_init__(self) -> None:
        for name in ("genres", "instruments", "moods", "timbres", "negative"):
            object.__setattr__(self, name, _split_words(getattr(self, name)))
        problems: list[str] = []
        if self.tempo is not None and not TEMPO_RANGE[0] <= self.tempo <= TEMPO_RANGE[1]:
            low, high = TEMPO_RANGE
            problems.append(f"tempo {self.tempo:g} is outside {low:g} to {high:g} beats per minute")
        if self.key is not None and _KEY.match(self.key.strip()) is None:
            problems.append(f"key {self.key!r} is not a tonic and mode such as 'F# minor' or 'Bb major'")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def tonic_and_mode(self) -> tuple[int, str] | None:
        """`key` as (pitch class 0–11 with C = 0, "major" or "minor"), or None where no key is set."""
        match = _KEY.match(self.key.strip()) if self.key else None
        if match is None:
            return None
        letter, accidental, mode = match.groups()
        shift = {"#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}.get((accidental or "").lower(), 0)
        tonic = ({"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[letter.upper()] + shift) % 12
        return tonic, "minor" if (mode or "").lower() in {"minor", "min", "moll"} or mode == "m" else "major"

    @property
    def is_complete(self) -> bool:
        words = self.lyrics or not self.vocals
        return bool(self.genres and self.instruments and self.moods and self.tempo and self.key and words)

    def overridden_by(self, hints: Tags) -> Tags:
        """Return these tags with every field that `hints` sets in its place."""
        values = {f.name: getattr(hints, f.name) for f in fields(hints)}
        return replace(self, **{name: value for name, value in values.items() if value not in (None, "", (), False)})

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class InpaintRequest:
    """A range of earlier music to write again, while the rest is kept."""

    start: float  # seconds of the video where a user gives them, of the span where a generator gets them; as `end`
    end: float
    source_path: Path | None = None  # the file with the earlier music; None is the output that is about to be replaced
    source_offset: float = 0.0  # second of that file at which the span begins
    # Its sidecar, if there is one; the seed there is that of the candidate which the file holds.
    source_metadata: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Controls:
    """Controls besides the tags; a generator names in `capabilities` which of these it supports."""

    reference: tuple[Path, ...] = ()  # audio whose style to follow: one, or two for the voice and the rest alone
    melody: Path | None = None  # audio whose tune to follow
    inpaint: InpaintRequest | None = None  # the range of earlier music to write again

    @property
    def requested(self) -> frozenset[str]:
        return frozenset(f.name for f in fields(self) if getattr(self, f.name))


@dataclass(frozen=True)
class SamplingConfig:
    """Sampling of a language model's next code. The defaults are MusicGen's.

    Args:
        temperature: Above 1 more adventurous, below 1 less; 0 takes the likeliest.
        top_k: Codes that may be drawn; 0 for all.
        top_p: Share of the probability that may be drawn from, from the likeliest on; 1 for all.
        cfg_scale: How many times stronger the text leads than it would by itself; 1 is no guidance, 0 no text.
        video_cfg_scale: The same for the video; None is as `cfg_scale`. 0 ignores the video, if the model reads text.
        cfg_beta: How many times more the text leads than a reference of style (double guidance, `cfg_coef_beta` of
            audiocraft); None, as 1, is plain guidance.
    """

    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 1.0
    cfg_scale: float = 3.0
    video_cfg_scale: float | None = None
    cfg_beta: float | None = None

    def __post_init__(self) -> None:
        problems = [] if self.temperature >= 0 else [f"temperature {self.temperature:g} must be 0 or more"]
        problems += [] if self.top_k >= 0 else [f"top_k {self.top_k} must be 0 (all) or more"]
        problems += [] if 0 < self.top_p <= 1 else [f"top_p {self.top_p:g} must lie above 0 and up to 1 (all)"]
        weights = {name: getattr(self, name) for name in ("cfg_scale", "video_cfg_scale", "cfg_beta")}
        problems += [f"{name} {value:g} must be 0 or more" for name, value in weights.items() if (value or 0) < 0]
        if problems:
            raise ValueError("; ".join(problems))


@dataclass(frozen=True)
class CodecSpec:
    """Format of a codec: Hz, frames per second, `num_codebooks`, and `codebook_size` of each."""

    sample_rate: int
    frame_rate: int
    num_codebooks: int
    codebook_size: int
    channels: int


@dataclass(frozen=True)
class WeightsInfo:
    """A model that took part; `revision` is the hub's commit, `license` as its authors name it."""

    name: str
    folder: Path
    revision: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Section:
    """A section of the music: `name` (intro, A, B, …, ending), `energy` 0–1."""

    name: str
    start: float
    end: float
    energy: float = 0.5


@dataclass(frozen=True)
class Soundtrack:
    """Output of a generator: music exactly as long as the video, with its metadata."""

    audio: Audio
    stems: Mapping[str, Audio] = field(default_factory=dict)  # sum to the mix before mastering
    midi: bytes | None = None  # a Standard MIDI File
    beats: Floats | None = None  # (B,) seconds
    downbeats: Floats | None = None
    accents: Floats | None = None  # seconds of the accents played for cuts, on beats and between them
    sections: tuple[Section, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)  # plain values for the sidecar


class ProgressFn(Protocol):
    """Callback for the progress of a stage: `fraction` 0–1, never falling."""

    def __call__(self, fraction: float) -> None: ...
