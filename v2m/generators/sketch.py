"""The Sketch generator: music composed for the cuts of a video and played by SoundFont."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from v2m.core.errors import DependencyError, UsageError
from v2m.core.licenses import LicensedComponent
from v2m.core.progress import ignore_progress, sub_progress
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Controls, InpaintRequest, ProgressFn, Section, Soundtrack, Tags, Video
from v2m.generators.base import GeneratorBase
from v2m.generators.inpaint import InpaintSource, inpaint_metadata, level_gain
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.compose.inpaint import TakeHistory, TakeRecord, recompose_range
from v2m.sketch.instruments import STEMS
from v2m.sketch.perform.midi import encode_midi
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, provenance, render_mix
from v2m.sketch.plan import planner
from v2m.sketch.styles import STYLES, choose_style

COMPOSE_SHARE = 0.1  # of the progress, when composing is done and rendering begins


class Sketch(GeneratorBase):
    """Composer without weights: beats planned on the cuts, notes in a style, SoundFont synthesis.

    Args:
        style: ambient, cinematic, lo-fi, acoustic folk, electronic, rock, jazz, orchestral, waltz or funk; None takes
            the one that the tags' genres and moods name.
        soundfont: A General MIDI SoundFont (.sf2 or .sf3) of any size; None is the one that v2m carries.
        sample_rate: Of the music, in Hz.
        reverb: Reverb level relative to the style's own, 0 (dry) to 2.
    """

    capabilities = frozenset({"stems", "midi", "inpaint"})
    digital_source = "algorithmicMedia"

    def __init__(
        self, style: str | None = None, soundfont: str | None = None, sample_rate: int = 48000, reverb: float = 1.0
    ) -> None:
        if style is not None and style not in STYLES:
            raise UsageError(f"style {style!r} is not one of: {', '.join(STYLES)}")
        if soundfont is not None and not Path(soundfont).is_file():
            raise UsageError(f"soundfont {soundfont} is not a file; leave it out to use the built-in one")
        if not 0 <= reverb <= 2:
            raise UsageError(f"reverb {reverb:g} must lie between 0 and 2")
        if find_spec("_v2m_tinysoundfont") is None:
            raise DependencyError("the synthesizer that v2m's wheel carries is missing: `uv sync`, or `pip install .`")
        self.style, self.soundfont, self.sample_rate, self.reverb = style, soundfont, sample_rate, reverb

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the SoundFont: all else is code of v2m."""
        from v2m.pretrained.licenses import soundfont_component

        return [soundfont_component(self._soundfont_path)]

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Raise UsageError where an inpainting source's sidecar does not say how Sketch wrote it."""
        if controls.inpaint is not None:
            TakeHistory.from_request(controls.inpaint)

    def audio_bytes(self, duration: float, *, stems: bool) -> int:
        """Return the bytes of the stereo mix, with `stems` those of the effects and of one other stem, too."""
        return (3 if stems else 1) * 8 * seconds_to_samples(duration, self.sample_rate)

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
        """Compose music of exactly `video.duration`. The same arguments give the same bytes.

        Inpainting replaces a time range on the source's beats, in its key and over its chords, with the instruments and
        moods of `tags`; UsageError where it is not Sketch's music for this video. Outside of it the audio stays sample
        for sample, at the file's own rate. Stems are rendered again and lack what was done to the source after
        rendering, such as mastering.
        """
        report: ProgressFn = progress or ignore_progress
        report(0.0)
        if controls is not None and controls.inpaint is not None:
            take = TakeRecord(controls.inpaint.start, controls.inpaint.end, seed, tags)
            return self._inpaint(video, take, controls.inpaint, stems, report)
        style = STYLES[self.style] if self.style else choose_style(tags)
        plan = planner.plan_for_style(style, video.visual_features(), video.duration, tags, seed)
        piece = compose(plan, style, tags, seed)
        report(COMPOSE_SHARE)
        audio, stem_audio = self._render(piece, stems, sub_progress(report, COMPOSE_SHARE, 1.0))
        return self._soundtrack(piece, tags, audio, stem_audio)

    def _inpaint(
        self, video: Video, take: TakeRecord, request: InpaintRequest, stems: bool, report: ProgressFn
    ) -> Soundtrack:
        history = TakeHistory.from_request(request)
        old_piece, new_piece = recompose_range(history, video.visual_features(), video.duration, take)
        source = InpaintSource.load(request, video.duration)
        report(COMPOSE_SHARE)
        mix_share = (1.0 + COMPOSE_SHARE) / 2 if stems else 1.0
        audio, new_stems = self._render(new_piece, stems, sub_progress(report, COMPOSE_SHARE, mix_share))
        gain = level_gain(source, audio)
        stem_audio: dict[str, Audio] = {}
        if stems:
            _, old_stems = self._render(old_piece, True, sub_progress(report, mix_share, 1.0))
            silence = replace(audio, samples=np.zeros_like(audio.samples))
            for stem in {**old_stems, **new_stems}:
                old_audio = _scale(old_stems.get(stem, silence), gain)
                new_audio = _scale(new_stems.get(stem, silence), gain)
                stem_audio[stem] = replace(source, audio=old_audio).crossfade_in(new_audio)
        mix = source.crossfade_in(_scale(audio, gain))
        takes = [record.to_dict() for record in (*history.takes, take)]
        metadata = {**inpaint_metadata(request), "takes": takes}
        return self._soundtrack(new_piece, take.tags, mix, stem_audio, metadata)

    def _render(self, piece: Piece, stems: bool, report: ProgressFn) -> tuple[Audio, Mapping[str, Audio]]:
        rate, count = self.sample_rate, seconds_to_samples(piece.sheet.plan.duration, self.sample_rate)
        mix, stem_samples = render_mix(
            piece.sheet, piece.parts, count, soundfont=self._soundfont_path, sample_rate=rate, reverb=self.reverb,
            stems=stems, progress=report,
        )  # fmt: skip
        return Audio(mix, rate), {stem: Audio(samples, rate) for stem, samples in stem_samples.items()}

    @property
    def _soundfont_path(self) -> Path:
        return Path(self.soundfont) if self.soundfont else DEFAULT_SOUNDFONT

    def _soundtrack(
        self,
        piece: Piece,
        tags: Tags,
        audio: Audio,
        stem_audio: Mapping[str, Audio],
        metadata: Mapping[str, Any] | None = None,
    ) -> Soundtrack:
        sheet, plan = piece.sheet, piece.sheet.plan
        note = {"note": "vocals were asked for; this generator plays instruments only"} if tags.vocals else {}
        return Soundtrack(
            audio=audio,
            stems={stem: stem_audio[stem] for stem in STEMS if stem in stem_audio},
            midi=encode_midi(sheet, piece.parts, f"{sheet.style.name} in {sheet.key.name}"),
            beats=plan.beats,
            downbeats=plan.downbeats,
            accents=plan.accents,
            sections=_sections(plan),
            metadata={
                "style": sheet.style.name,
                "key": sheet.key.name,
                "progressions": dict(piece.progressions),
                "instruments": list(dict.fromkeys(part.name for part in piece.parts)),
                **planner.describe_plan(plan),
                **note,
                "soundfont": provenance(self._soundfont_path),
                **(metadata or {}),
            },
        )


def _scale(audio: Audio, gain: float) -> Audio:
    return replace(audio, samples=audio.samples * np.float32(gain))


def _sections(plan: planner.Plan) -> tuple[Section, ...]:
    starts = [float(plan.tempo_map.beat_to_time(plan.bars[section.first].start)) for section in plan.sections]
    ends = [*starts[1:], plan.duration]
    return tuple(
        Section(planner.section_label(section), start, end, section.energy)
        for section, start, end in zip(plan.sections, starts, ends, strict=True)
    )
