"""The score codec: scores as codes, which a SoundFont plays. It has a vocabulary instead of weights.

B batch, K codebooks, T frames, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.core.progress import ignore_progress
from v2m.core.timing import hop_length, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, CodecSpec, ProgressFn, Soundtrack, Tags
from v2m.sketch.instruments import STEMS
from v2m.sketch.notation import vocabulary as vocab
from v2m.sketch.notation.decoding import decode_score
from v2m.sketch.notation.encoding import encode_score
from v2m.sketch.notation.performance import estimate_key, perform
from v2m.sketch.notation.score import Score
from v2m.sketch.perform.midi import encode_midi
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, provenance, render_mix
from v2m.sketch.styles import STYLES, choose_style

MODEL_TYPE = "v2m-score-1"  # changes with the vocabulary: codes of one are not codes of another
RELATIVE_NAME = f"{MODEL_TYPE}-relative"


@dataclass(frozen=True)
class ScoreCodecConfig:
    """Settings of the sound.

    Args:
        style: Style whose instruments play; None takes the one that the tags name.
        soundfont: A General MIDI SoundFont (.sf2 or .sf3); None is the one that v2m carries.
        sample_rate: Hz, a multiple of 50.
        reverb: Reverb level relative to the style's own, 0 (dry) to 2.
        relative: Whether codes are of the music transposed to C, so that a model need not learn each key by itself.
            Decoding transposes to the key of the tags.
    """

    style: str | None = None
    soundfont: str | None = None
    sample_rate: int = 48000
    reverb: float = 1.0
    relative: bool = False

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.style is not None and self.style not in STYLES:
            problems.append(f"style {self.style!r} is not one of: {', '.join(STYLES)}")
        if self.soundfont is not None and not Path(self.soundfont).is_file():
            problems.append(f"soundfont {self.soundfont} is not a file")
        if self.sample_rate <= 0 or self.sample_rate % vocab.FRAME_RATE:
            problems.append(f"sample_rate {self.sample_rate} must be a multiple of {vocab.FRAME_RATE}")
        if not 0 <= self.reverb <= 2:
            problems.append(f"reverb {self.reverb:g} must lie between 0 and 2")
        if problems:
            raise ValueError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a component's config.json."""
        return {"model_type": MODEL_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreCodecConfig:
        """Return the config of a config.json; raise DependencyError where it is none of this codec."""
        own = {name: value for name, value in values.items() if name != "model_type"}
        try:
            if values.get("model_type") != MODEL_TYPE:
                raise ValueError(f"model_type {values.get('model_type')!r}, not {MODEL_TYPE!r}")
            return cls(**own)
        except (TypeError, ValueError) as error:
            raise DependencyError(f"no score codec that this version of v2m has ({error})") from error


NAMED_CONFIGS = {MODEL_TYPE: ScoreCodecConfig(), RELATIVE_NAME: ScoreCodecConfig(relative=True)}


class ScoreCodec:
    """Scores as codes (see `v2m.sketch.notation.vocabulary`), and codes as sound.

    It has the methods of the other codecs, but reads scores: sound has no notes to read.
    """

    def __init__(self, config: ScoreCodecConfig | None = None) -> None:
        self.config = config or ScoreCodecConfig()
        rate = self.config.sample_rate
        self.spec = CodecSpec(rate, vocab.FRAME_RATE, vocab.NUM_CODEBOOKS, vocab.CODEBOOK_SIZE, channels=2)
        self.hop_length = hop_length(rate, vocab.FRAME_RATE)

    def encode(self, scores: Score | Sequence[Score], tags: Tags | None = None) -> Tensor:
        """Scores → codes (B, K, T) int64, T of the longest; a shorter one rests at the end.

        Where codes are relative, the key is that of `tags`, or else estimated. Raises UsageError for sound.
        """
        scores = [scores] if isinstance(scores, Score) else scores
        if isinstance(scores, Tensor | np.ndarray):
            raise UsageError("the score codec encodes scores, not sound: give a MIDI file")
        if self.config.relative:
            key = (tags or Tags()).tonic_and_mode
            tonics = [estimate_key(score).tonic if key is None else key[0] for score in scores]
            scores = [score.transposed(-_interval(tonic)) for score, tonic in zip(scores, tonics, strict=True)]
        codes = [encode_score(score)[0] for score in scores]
        out = np.zeros((len(codes), vocab.NUM_CODEBOOKS, max(part.shape[1] for part in codes)), np.int64)
        for row, part in zip(out, codes, strict=True):
            row[:, : part.shape[1]] = part
        return torch.from_numpy(out)

    def decode(self, codes: Tensor, tags: Tags | None = None, seed: int = 0) -> Tensor:
        """Codes (B, K, T) → audio (B, 2, T · `hop_length`), float32, played as `tags` say.

        Any codes are valid. Audio without notes is silent; all other peaks at −3 dBFS before its end fades.
        """
        assert codes.ndim == 3, f"expected (B, K, T), not {tuple(codes.shape)}"
        duration = samples_to_seconds(codes.shape[2], vocab.FRAME_RATE)
        waves = [self.render(row, duration, tags, seed).audio.samples for row in codes.cpu().numpy()]
        return torch.from_numpy(np.stack(waves))

    def render(
        self,
        codes: NDArray[np.integer],
        duration: float,
        tags: Tags | None = None,
        seed: int = 0,
        *,
        stems: bool = False,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Play codes (K, T) for `duration` seconds.

        The soundtrack has MIDI, beats and, with `stems`, its stems.
        """
        score = self.decode_score(codes, duration, tags)
        return self.play(score, tags, seed, stems=stems, progress=progress)

    def decode_score(self, codes: NDArray[np.integer], duration: float, tags: Tags | None = None) -> Score:
        """Decode codes (K, T) to a score of `duration` seconds; relative ones in the key of `tags`, or in C."""
        score, key = decode_score(codes, duration), (tags or Tags()).tonic_and_mode
        return score.transposed(_interval(key[0])) if self.config.relative and key is not None else score

    def play(
        self,
        score: Score,
        tags: Tags | None = None,
        seed: int = 0,
        *,
        stems: bool = False,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Play a score with the instruments that `tags` name; `seed` chooses among those of the style."""
        tags, config = tags or Tags(), self.config
        style = STYLES[config.style] if config.style else choose_style(tags)
        piece = perform(score, style, tags, seed)
        rate, count = config.sample_rate, seconds_to_samples(score.duration, config.sample_rate)
        soundfont = Path(config.soundfont) if config.soundfont else DEFAULT_SOUNDFONT
        mix, stem_samples = render_mix(
            piece.sheet, piece.parts, count, soundfont=soundfont, sample_rate=rate, reverb=config.reverb,
            stems=stems, progress=progress or ignore_progress,
        )  # fmt: skip
        return Soundtrack(
            audio=Audio(np.asarray(mix), rate),
            stems={stem: Audio(np.asarray(stem_samples[stem]), rate) for stem in STEMS if stem in stem_samples},
            midi=encode_midi(piece.sheet, piece.parts, f"{style.name} in {piece.sheet.key.name}"),
            beats=score.beats if len(score.beats) else None,
            downbeats=score.downbeats if len(score.downbeats) else None,
            metadata={
                "style": style.name,
                "key": piece.sheet.key.name,
                "instruments": list(dict.fromkeys(part.name for part in piece.parts)),
                "soundfont": provenance(soundfont),
            },
        )


def _interval(tonic: int) -> int:
    """Return the semitones from C to the nearest `tonic`, −5 to 6."""
    return tonic if tonic <= 6 else tonic - 12
