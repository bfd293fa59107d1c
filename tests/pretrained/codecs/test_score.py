"""The score codec: sound, MIDI and stems of codes, and its config."""

from __future__ import annotations

import io
from dataclasses import replace

import mido
import numpy as np
import pytest
import torch

from tests.sketch.stub_videos import compose_piece
from v2m.checkpoints import Component
from v2m.checkpoints.codec import load_codec
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import Codec
from v2m.core.types import Tags
from v2m.pretrained.codecs.score import MODEL_TYPE, RELATIVE_NAME, ScoreCodec, ScoreCodecConfig
from v2m.sketch.compose.harmony import NOTE_NAMES
from v2m.sketch.notation import vocabulary as vocab
from v2m.sketch.notation.performance import estimate_key
from v2m.sketch.notation.score import Score

CODEC = ScoreCodec(ScoreCodecConfig(sample_rate=16000))


def test_codec_has_the_contract_and_the_format_of_its_codes() -> None:
    assert isinstance(CODEC, Codec)
    spec = ScoreCodec().spec
    assert (spec.sample_rate, spec.frame_rate, spec.num_codebooks, spec.channels) == (48000, 50, 12, 2)
    codes = CODEC.encode([Score.from_piece(compose_piece("jazz", 1, duration=d)) for d in (3.0, 4.5)])
    assert codes.shape == (2, spec.num_codebooks, 225)
    assert codes.dtype == torch.int64
    assert int(codes.max()) < spec.codebook_size
    assert not codes[0, :, 150:].any()


def test_soundtrack_has_sound_midi_stems_and_beats() -> None:
    score = Score.from_piece(compose_piece("rock", 2, duration=6.0))
    soundtrack = CODEC.render(CODEC.encode(score)[0].numpy(), 6.0, Tags(genres=["rock"]), seed=2, stems=True)
    assert soundtrack.audio.samples.shape == (2, 96000)
    assert 0.5 < np.abs(soundtrack.audio.samples).max() <= 1.0
    total = np.sum([audio.samples for audio in soundtrack.stems.values()], axis=0)
    np.testing.assert_allclose(total, soundtrack.audio.samples, atol=1e-3)
    assert {"bass", "drums", "melody"} <= soundtrack.stems.keys()
    assert soundtrack.beats is not None
    np.testing.assert_allclose(soundtrack.beats, score.beats, atol=0.0101)
    assert soundtrack.midi is not None
    played = [m for m in mido.MidiFile(file=io.BytesIO(soundtrack.midi)) if m.type == "note_on"]
    assert len(played) >= 0.97 * len(score.notes)
    assert soundtrack.metadata["style"] == "rock"


def test_tags_choose_the_instruments() -> None:
    codes = CODEC.encode(Score.from_piece(compose_piece("cinematic", 1, duration=4.0)))[0].numpy()
    names = CODEC.render(codes, 4.0, Tags(genres=["jazz"], instruments=["trumpet"])).metadata["instruments"]
    assert "trumpet" in names
    assert "double bass" in names


def test_noise_and_silence_decode_to_sound_of_the_stated_length() -> None:
    noise = torch.randint(0, vocab.CODEBOOK_SIZE, (1, 12, 100), generator=torch.Generator().manual_seed(0))
    silence = torch.zeros(1, 12, 100, dtype=torch.long)
    wave = CODEC.decode(torch.cat([noise, silence]))
    assert wave.shape == (2, 2, 100 * CODEC.hop_length)
    assert wave.dtype == torch.float32
    assert float(wave[0].abs().max()) > 0.1
    assert float(wave[1].abs().max()) == 0
    assert torch.isfinite(wave).all()


def test_sound_is_refused_with_the_cure() -> None:
    with pytest.raises(UsageError, match="give a MIDI file"):
        CODEC.encode(torch.zeros(1, 2, 960))  # type: ignore[arg-type]


def test_config_comes_back_and_another_codecs_is_refused() -> None:
    config = ScoreCodecConfig(style="jazz", reverb=0.5)
    assert ScoreCodecConfig.from_dict(config.to_dict()) == config
    for values in ({"model_type": "encodec"}, {}, {**config.to_dict(), "style": "polka"}, {**config.to_dict(), "x": 1}):
        with pytest.raises(DependencyError, match="no score codec"):
            ScoreCodecConfig.from_dict(values)


@pytest.mark.parametrize("tonic", [0, 3, 6, 7, 11])
def test_relative_codes_are_those_of_the_music_in_c_and_decode_to_the_key_of_the_tags(tonic: int) -> None:
    codec = ScoreCodec(replace(CODEC.config, relative=True))
    in_c = Score.from_piece(compose_piece("rock", 2, Tags(key="C minor"), duration=4.0))
    tags = Tags(key=f"{NOTE_NAMES[tonic]} minor")
    moved = in_c.transposed(tonic if tonic <= 6 else tonic - 12)
    codes = codec.encode(moved, tags)
    assert torch.equal(codes, CODEC.encode(in_c))
    assert not torch.equal(codes, CODEC.encode(moved)) or tonic == 0
    decoded = codec.decode_score(codes[0].numpy(), 4.0, tags)
    pitches = [(voice, note.pitch) for voice, note in decoded.notes]
    assert pitches == [
        (voice, note.pitch) for voice, note in CODEC.decode_score(CODEC.encode(moved)[0].numpy(), 4.0).notes
    ]


def test_relative_codes_without_a_key_are_by_the_estimated_one() -> None:
    codec = ScoreCodec(replace(CODEC.config, relative=True))
    in_c = Score.from_piece(compose_piece("cinematic", 3, Tags(key="C minor"), duration=8.0))
    assert estimate_key(in_c).tonic == 0
    assert torch.equal(codec.encode(in_c.transposed(5)), codec.encode(in_c))


def test_named_codecs_are_absolute_and_relative() -> None:
    loaded = [load_codec(Component(name), torch.device("cpu")) for name in (MODEL_TYPE, RELATIVE_NAME)]
    assert [codec.config.relative for codec in loaded if isinstance(codec, ScoreCodec)] == [False, True]
