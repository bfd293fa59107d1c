"""The Sketch generator: an arranger that writes a piece for the picture and plays it, without weights or network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from v2m.core.errors import DependencyError, UsageError
from v2m.core.timing import sample_count
from v2m.core.types import Audio, Controls, InpaintRequest, ProgressFn, Section, Soundtrack, Tags, Video
from v2m.generators.inpaint import InpaintSource, level_gain
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.compose.inpaint import TakeHistory, TakeRecord, recompose_range
from v2m.sketch.instruments import STEMS
from v2m.sketch.perform.midi import encode_midi
from v2m.sketch.perform.synthesizer import default_soundfont, provenance, render_mix
from v2m.sketch.plan import planner
from v2m.sketch.styles import STYLES, choose_style

COMPOSE_SHARE = 0.1  # share of the work done when the first sound is rendered


class Sketch:
    """Plans beats on the cuts, composes in a style, plays through a SoundFont in a synthetic room.

    Args:
        style: ambient, cinematic, lo-fi, acoustic folk, electronic, rock, jazz, orchestral, waltz or funk; None takes
            what the tags' genres and moods ask for.
        soundfont: A General MIDI bank (.sf2 or .sf3); None is the small one that pretty_midi carries.
        sample_rate: Of the music, in Hz.
        reverb: The room's level against the style's own, 0 (dry) to 2.
    """

    def __init__(
        self, style: str | None = None, soundfont: str | None = None, sample_rate: int = 48000, reverb: float = 1.0
    ) -> None:
        if style is not None and style not in STYLES:
            raise UsageError(f"style {style!r} is not one of: {', '.join(STYLES)}")
        if soundfont is not None and not Path(soundfont).is_file():
            raise UsageError(f"soundfont {soundfont} is not a file; leave it out to use the built-in bank")
        if not 0 <= reverb <= 2:
            raise UsageError(f"reverb {reverb:g} must lie between 0 and 2")
        if find_spec("tinysoundfont") is None:
            raise DependencyError("the synthesizer tinysoundfont is missing: pip install --no-deps tinysoundfont")
        self.style = style
        self.soundfont = soundfont
        self.sample_rate = sample_rate
        self.reverb = reverb

    steers = frozenset({"stems", "midi", "regenerate"})

    def prepare(self, tags: Tags, controls: Controls) -> None:  # noqa: ARG002 - any tags will do
        """Raises UsageError where a part is to be written anew of music that Sketch cannot go on with."""
        if controls.inpaint is not None:
            TakeHistory.from_request(controls.inpaint)

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration`. The same arguments give the same bytes.

        Of earlier music a part is written anew on its beats, in its key and over its chords, by the players and moods
        that `tags` ask for; the rest stays sample for sample, at the file's own rate, and in the stems, too, up to what
        was done to that music after it was played.

        `facts` says what was chosen: style, key, progressions, instruments, the SoundFont with its license where that
        is known, and how the plan met the cuts.

        Raises:
            UsageError: What is to be kept is not Sketch's own music for this picture.
        """
        tell: Callable[[float], None] = progress or (lambda _: None)
        tell(0.0)
        if controls is not None and controls.inpaint is not None:
            return self._inpaint(
                video, TakeRecord.from_request(controls.inpaint, seed, tags), controls.inpaint, stems, tell
            )
        style = STYLES[self.style] if self.style else choose_style(tags)
        piece = compose(
            planner.plan_for_style(style, video.visual_features(), video.duration, tags, seed), style, tags, seed
        )
        tell(COMPOSE_SHARE)
        audio, split = self._render(piece, stems, _part(tell, COMPOSE_SHARE, 1.0))
        return self._soundtrack(piece, tags, audio, split)

    def _inpaint(
        self, video: Video, part: TakeRecord, asked: InpaintRequest, stems: bool, tell: Callable[[float], None]
    ) -> Soundtrack:
        origin = TakeHistory.from_request(asked)
        old, new = recompose_range(origin, video.visual_features(), video.duration, part)
        kept = InpaintSource.load(asked, video.duration)
        tell(COMPOSE_SHARE)
        between = (1.0 + COMPOSE_SHARE) / 2 if stems else 1.0
        audio, split = self._render(new, stems, _part(tell, COMPOSE_SHARE, between))
        gain = level_gain(kept, audio)
        if stems:
            _, before = self._render(old, True, _part(tell, between, 1.0))
            silence = replace(audio, samples=np.zeros_like(audio.samples))
            split = {
                stem: replace(kept, audio=_apply_gain(before.get(stem, silence), gain)).crossfade_in(
                    _apply_gain(split.get(stem, silence), gain)
                )
                for stem in {**before, **split}
            }
        told = {"inpainted": [asked.start, asked.end], "inpaint_source": str(asked.source_path)}
        told["takes"] = [each.to_dict() for each in (*origin.takes, part)]
        return self._soundtrack(new, part.tags, kept.crossfade_in(_apply_gain(audio, gain)), split, told)

    def _render(self, piece: Piece, stems: bool, tell: Callable[[float], None]) -> tuple[Audio, Mapping[str, Audio]]:
        """The sound of `piece`, and with `stems` its parts."""
        mix, split = render_mix(
            piece.sheet,
            piece.parts,
            sample_count(piece.sheet.plan.duration, self.sample_rate),
            soundfont=self._soundfont_path,
            sample_rate=self.sample_rate,
            reverb=self.reverb,
            stems=stems,
            progress=tell,
        )
        return Audio(mix, self.sample_rate), {stem: Audio(sound, self.sample_rate) for stem, sound in split.items()}

    @property
    def _soundfont_path(self) -> Path:
        return Path(self.soundfont) if self.soundfont else default_soundfont()

    def _soundtrack(
        self,
        piece: Piece,
        tags: Tags,
        audio: Audio,
        split: Mapping[str, Audio],
        told: Mapping[str, Any] | None = None,
    ) -> Soundtrack:
        plan = piece.sheet.plan
        return Soundtrack(
            audio=audio,
            stems={stem: split[stem] for stem in STEMS if stem in split},
            midi=encode_midi(piece.sheet, piece.parts, f"{piece.sheet.style.name} in {piece.sheet.key.name}"),
            beats=plan.beats,
            downbeats=plan.downbeats,
            sections=_sections(plan),
            metadata={**_describe_piece(piece, tags), "soundfont": provenance(self._soundfont_path), **(told or {})},
        )


def _part(tell: Callable[[float], None], begin: float, end: float) -> Callable[[float], None]:
    return lambda fraction: tell(begin + (end - begin) * fraction)


def _apply_gain(audio: Audio, gain: float) -> Audio:
    return replace(audio, samples=audio.samples * np.float32(gain))


def _sections(plan: planner.Plan) -> tuple[Section, ...]:
    starts = [float(plan.tempo_map.beat_to_time(plan.bars[section.first].start)) for section in plan.sections]
    ends = [*starts[1:], plan.duration]
    return tuple(
        Section(planner.section_label(section), start, end, section.energy)
        for section, start, end in zip(plan.sections, starts, ends, strict=True)
    )


def _describe_piece(piece: Piece, tags: Tags) -> Mapping[str, Any]:
    facts: dict[str, Any] = {
        "style": piece.sheet.style.name,
        "key": piece.sheet.key.name,
        "progressions": dict(piece.progressions),
        "instruments": list(dict.fromkeys(part.name for part in piece.parts)),
        **planner.describe_plan(piece.sheet.plan),
    }
    if tags.vocals:
        facts["note"] = "vocals were asked for; this generator plays instruments only"
    return facts
