"""The Sketch generator: an arranger that writes a piece for the picture and plays it, without weights or network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from v2m.errors import MissingError, UsageError
from v2m.generators.sketch import plan as planning
from v2m.generators.sketch.arrange import Piece, compose
from v2m.generators.sketch.bank import default_soundfont, provenance
from v2m.generators.sketch.instruments import STEMS
from v2m.generators.sketch.midi import midi_file
from v2m.generators.sketch.render import render
from v2m.generators.sketch.sheet import title
from v2m.generators.sketch.styles import STYLES, style_for
from v2m.timing import sample_count
from v2m.types import Audio, Progress, Score, Section, Steering, Tags, Video

PLAYING_FROM = 0.1  # share of the work done when the first sound is rendered


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
            raise MissingError("the synthesiser tinysoundfont is missing: pip install --no-deps tinysoundfont")
        self.style = style
        self.soundfont = soundfont
        self.sample_rate = sample_rate
        self.reverb = reverb

    steers = frozenset({"stems", "midi"})

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        steering: Steering | None = None,  # noqa: ARG002 - it steers by nothing but the tags
        progress: Progress | None = None,
    ) -> Score:
        """Music of exactly `video.duration`. The same arguments give the same bytes.

        `facts` says what was chosen: style, key, progressions, instruments, the SoundFont with its licence where that
        is known, and how the plan met the cuts.
        """
        tell: Callable[[float], None] = progress or (lambda _: None)
        tell(0.0)
        style = STYLES[self.style] if self.style else style_for(tags)
        plan = planning.plan(
            video.picture(),
            video.duration,
            tags.tempo or style.tempo[1],
            seed,
            beats_per_bar=style.meter,
            steadiness=style.steadiness,
        )
        soundfont = Path(self.soundfont) if self.soundfont else default_soundfont()
        piece = compose(plan, style, tags, seed)
        tell(PLAYING_FROM)
        mix, split = render(
            piece.sheet,
            piece.parts,
            sample_count(video.duration, self.sample_rate),
            soundfont=soundfont,
            sample_rate=self.sample_rate,
            reverb=self.reverb,
            stems=stems,
            progress=lambda fraction: tell(PLAYING_FROM + (1 - PLAYING_FROM) * fraction),
        )
        return Score(
            audio=Audio(mix, self.sample_rate),
            stems={stem: Audio(split[stem], self.sample_rate) for stem in STEMS if stem in split},
            midi=midi_file(piece.sheet, piece.parts, f"{style.name} in {piece.sheet.key.name}"),
            beats=plan.beats,
            downbeats=plan.downbeats,
            sections=_sections(plan),
            facts={**_facts(piece, tags), "soundfont": provenance(soundfont)},
        )


def _sections(plan: planning.Plan) -> tuple[Section, ...]:
    starts = [float(plan.tempo_map.time(plan.bars[passage.first].start)) for passage in plan.passages]
    ends = [*starts[1:], plan.duration]
    return tuple(
        Section(title(passage), start, end, passage.energy)
        for passage, start, end in zip(plan.passages, starts, ends, strict=True)
    )


def _facts(piece: Piece, tags: Tags) -> Mapping[str, Any]:
    facts: dict[str, Any] = {
        "style": piece.sheet.style.name,
        "key": piece.sheet.key.name,
        "progressions": dict(piece.progressions),
        "instruments": list(dict.fromkeys(part.name for part in piece.parts)),
        **planning.facts(piece.sheet.plan),
    }
    if tags.vocals:
        facts["note"] = "vocals were asked for; this generator plays instruments only"
    return facts
