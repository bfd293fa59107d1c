"""Samples of music without video: when something happens in the music, and as much as in real clips."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from tests.data.test_prepare import digests, read
from tests.fixtures.tiny import encoders
from tests.training.test_module import trainer
from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.cli.prepare import main
from v2m.core.types import Audio
from v2m.data.module import ShardData
from v2m.data.music_curves import MusicCurves, score_curves, sound_curves
from v2m.data.pseudo_video import CHANNELS, choose_cuts, load_statistics, make_pseudo_video
from v2m.data.schema import CODES, EVENTS, FRAMES, LONG_TERM, META, Manifest
from v2m.models.lm import LMConfig
from v2m.models.visual_conditioner import ConditionerConfig
from v2m.pretrained.codecs.score import MODEL_TYPE
from v2m.sketch.notation.midi_file import read_midi
from v2m.training.module import LitMusicLM
from v2m.training.optim import OptimConfig

TICKS = 480
BEAT_S = 0.5  # at 120 beats a minute
STEP_S = 0.05  # of events
RATE = 32000


def write_midi(path: Path, *, beats: int = 48, accents: tuple[int, ...] = (), minor: bool = False) -> None:
    """A melody in eighths over a bass, with a loud chord and a crash on each beat of `accents`."""
    track = mido.MidiTrack()
    events: list[tuple[int, Any]] = []
    scale = (60, 62, 63, 67, 68, 65, 63, 62) if minor else (60, 62, 64, 67, 69, 65, 64, 62)

    def add(beat: float, pitch: int, velocity: int, length: float, channel: int) -> None:
        on, off = round(beat * TICKS), round((beat + length) * TICKS)
        events.append((on, mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)))
        events.append((off, mido.Message("note_off", note=pitch, channel=channel)))

    for program, channel in ((73, 0), (32, 1), (0, 2)):
        events.append((0, mido.Message("program_change", program=program, channel=channel)))
    for eighth in range(2 * beats):
        add(eighth / 2, scale[eighth % 8] + 12, 60, 0.45, 0)
    for beat in range(0, beats, 2):
        add(beat, 36, 55, 1.9, 1)
    for beat in accents:
        for pitch in (48, 60, scale[2], 67, 72):
            add(beat, pitch, 120, 0.9, 2)
        add(beat, 49, 120, 0.2, 9)
    last = 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=tick - last))
        last = tick
    buffer = io.BytesIO()
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(file=buffer)
    path.write_bytes(buffer.getvalue())


def clicks(times: tuple[float, ...], seconds: float) -> np.ndarray:
    """A quiet chord, louder and higher after each of `times`, that begins with a burst."""
    time = np.arange(round(seconds * RATE)) / RATE
    part = np.searchsorted(times, time, side="right")
    wave = 0.02 * np.sin(2 * np.pi * 220 * 2 ** ((part % 3) * 4 / 12) * time)
    random = np.random.default_rng(0)
    for second in times:
        since = time - second
        wave += np.where(since >= 0, 0.5 * np.exp(-np.maximum(since, 0) / 0.05) * random.normal(size=len(time)), 0)
    return wave.astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return encoders.write_options(tmp_path_factory.mktemp("weights"))


def arguments(weights: dict[str, str], *paths: Path, **given: object) -> list[str]:
    values = {
        **weights,
        "num_long_term_frames": 4,
        "max_segment_s": 15,
        "processes": 1,
        "device": "cpu",
        "unpaired": True,
    }
    flags = [
        f"--{name.replace('_', '-')}={str(value).lower() if value is True else value}"
        for name, value in (values | given).items()
    ]
    return [*flags, "--quiet", *map(str, paths)]


ACCENTS = (6, 14, 17, 24, 33, 40)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pieces as MIDI, one of them also as sound, with tags beside one; and what is left out."""
    root = tmp_path_factory.mktemp("music")
    (root / "deep").mkdir()
    write_midi(root / "a.mid", accents=ACCENTS)
    write_midi(root / "deep" / "b.MIDI", accents=(8, 20, 30), minor=True)
    (root / "deep" / "b.tags.json").write_text('{"genres": ["polka"], "tempo": 133}')
    write_midi(root / "short.mid", beats=4)
    (root / "broken.mid").write_bytes((root / "a.mid").read_bytes()[:40])
    soundfile.write(root / "a.wav", clicks((3.2, 7.05, 9.9, 14.3), 18.0), RATE)
    soundfile.write(root / "silent.flac", np.zeros(10 * RATE, np.float32), RATE)
    (root / "noise.mp3").write_bytes(b"no sound at all")
    (root / "a.mp4").write_bytes(b"a video is of no interest here")
    return root


def test_cuts_of_a_score_are_on_its_accents(tmp_path: Path) -> None:
    """Each cut within one step of events, none elsewhere; over many draws every accent has its cut."""
    write_midi(tmp_path / "a.mid", accents=ACCENTS)
    curves = score_curves(read_midi(tmp_path / "a.mid"))
    times = BEAT_S * np.array(ACCENTS)
    missed, uncut = set(ACCENTS), 0
    for seed in range(60):
        cuts = np.array([cut.time for cut in choose_cuts(curves, np.random.default_rng(seed))])
        uncut += not len(cuts)
        if len(cuts):
            distances = np.abs(cuts[:, None] - times)
            assert distances.min(axis=1).max() <= STEP_S
            assert np.diff(cuts).min(initial=1.0) > 0.5
            missed -= {ACCENTS[index] for index in distances.argmin(axis=1)}
    assert not missed
    assert 2 <= uncut <= 20


def test_cuts_of_sound_are_on_its_onsets() -> None:
    times = (3.2, 7.05, 9.9, 14.3)
    curves = sound_curves(Audio(clicks(times, 18.0)[None], RATE), None, 18.0)
    assert [accent.time for accent in curves.accents] == pytest.approx(times, abs=0.02)
    cuts = [cut.time for seed in range(20) for cut in choose_cuts(curves, np.random.default_rng(seed))]
    assert len(cuts) > 10
    assert max(min(abs(cut - time) for time in times) for cut in cuts) <= STEP_S + 0.02


def test_motion_follows_density_and_brightness_the_mode(tmp_path: Path) -> None:
    for name, minor in (("major", False), ("minor", True)):
        write_midi(tmp_path / f"{name}.mid", minor=minor)
    major, minor = (score_curves(read_midi(tmp_path / f"{name}.mid")) for name in ("major", "minor"))
    assert major.valence > 0.5 > minor.valence
    count = len(major.motion)
    busy = np.arange(count) > count // 2
    rising = MusicCurves(20.0, np.where(busy, 5.0, 1.0), major.brightness, 0.5, 0.5, (), ())
    means = []
    for seed in range(12):
        motion = make_pseudo_video(rising, [seed], Path("a")).visual_features().motion
        means.append(motion[busy].mean() / motion[~busy].mean())
    assert np.median(means) > 1.5
    light = {
        valence: np.mean(
            [
                make_pseudo_video(
                    MusicCurves(20.0, major.motion, major.brightness, 0.5, valence, (), ()), [seed], Path("a")
                )
                .visual_features()
                .brightness.mean()
                for seed in range(40)
            ]
        )
        for valence in (0.1, 0.9)
    }
    assert light[0.9] > light[0.1] + 0.05


def test_many_pieces_have_the_quantiles_of_real_clips() -> None:
    random = np.random.default_rng(0)
    events = []
    for seed in range(150):
        curve = np.cumsum(random.normal(size=480))
        piece = MusicCurves(20.0, curve, curve[::-1], random.random(), random.random(), (), ())
        events.append(visual_event_features(make_pseudo_video(piece, [seed], Path("a")).visual_features(), 0, 20.0))
    pooled = np.concatenate(events)
    for name in CHANNELS:
        expected = np.interp([0.1, 0.25, 0.5, 0.75, 0.9], np.linspace(0, 1, 41), load_statistics()[name].quantiles)
        measured = np.quantile(pooled[:, EVENT_CHANNELS.index(name)], [0.1, 0.25, 0.5, 0.75, 0.9])
        np.testing.assert_allclose(measured, expected, atol=0.06, err_msg=name)
    assert ((pooled >= 0) & (pooled <= 1)).all()


def test_scores_become_samples(weights: dict[str, str], music: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(arguments(weights, music, out, codec=MODEL_TYPE)) == 0
    manifest, samples = Manifest.read(out), read(out)
    assert (manifest.unpaired, manifest.codec, manifest.tagger) == (True, MODEL_TYPE, "")
    assert manifest.dropped == {"no_score": 2, "too_short": 1, "unreadable": 1}
    report = capsys.readouterr().out
    assert "music without video" in report
    assert {sample[META].source for sample in samples.values()} == {"a.mid", "deep/b.MIDI"}
    for sample in samples.values():
        for name, shape in manifest.shapes(sample[META]).items():
            assert all(want in (None, has) for want, has in zip(shape, sample[name].shape, strict=True)), name
        assert sample[META].duration <= 15
        assert np.ptp(sample[FRAMES]) > 0
        assert sample[LONG_TERM].shape[0] == 4
    first = [sample for sample in samples.values() if sample[META].source == "a.mid"]
    assert len(first) == 2
    tags = first[0][META].tags
    assert (tags["tempo"], tags["key"]) == (120.0, "C major")
    assert {"flute", "double bass", "piano", "drums"} == set(tags["instruments"])
    known = next(sample[META].tags for sample in samples.values() if sample[META].source == "deep/b.MIDI")
    assert (known["genres"], known["tempo"], known["key"]) == (["polka"], 133.0, "C minor")


def test_sound_becomes_samples_that_keep_time(weights: dict[str, str], music: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(arguments(weights, music, out)) == 0
    manifest, samples = Manifest.read(out), read(out)
    assert (manifest.unpaired, manifest.num_samples) == (True, 2)
    assert manifest.dropped == {"no_sound": 3, "silent": 1, "unreadable": 1}
    steps = np.concatenate(
        [np.flatnonzero(sample[EVENTS][:, 0]) * STEP_S + sample[META].start for sample in samples.values()]
    )
    for step in steps:
        assert min(abs(step - time) for time in (3.2, 7.05, 9.9, 14.3)) <= 2 * STEP_S
    for sample in samples.values():
        assert sample[CODES].shape[0] == manifest.num_codebooks


def test_same_music_gives_the_same_samples_by_any_name(weights: dict[str, str], music: Path, tmp_path: Path) -> None:
    (tmp_path / "renamed").mkdir()
    shutil.copy(music / "a.mid", tmp_path / "renamed" / "other.mid")
    for folder, out in ((music, "one"), (music, "two"), (tmp_path / "renamed", "three")):
        assert main(arguments(weights, folder, tmp_path / out, codec=MODEL_TYPE)) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    before = [sample for sample in read(tmp_path / "one").values() if sample[META].source == "a.mid"]
    for old, new in zip(before, read(tmp_path / "three").values(), strict=True):
        np.testing.assert_array_equal(old[EVENTS], new[EVENTS])
        np.testing.assert_array_equal(old[FRAMES], new[FRAMES])


def raw_midi(track: bytes) -> bytes:
    """A file of one track with 480 ticks a quarter note."""
    track += bytes.fromhex("00ff2f00")
    return b"MThd" + bytes.fromhex("000000060000000101e0") + b"MTrk" + len(track).to_bytes(4, "big") + track


def test_odd_midi_files_are_kept_or_dropped_with_a_reason(weights: dict[str, str], tmp_path: Path) -> None:
    """Without tempo and signature, in 5/8 and 7/8, of drums alone, of thousands of notes at once, by running status."""
    folder = tmp_path / "odd"
    folder.mkdir()

    def save(name: str, *messages: mido.Message | mido.MetaMessage) -> None:
        mido.MidiFile(ticks_per_beat=TICKS, tracks=[mido.MidiTrack(messages)]).save(folder / f"{name}.mid")

    def notes(count: int, time: int, channel: int = 0) -> list[mido.Message]:
        kinds = ("note_on", "note_off")
        return [
            mido.Message(kind, note=40 + index % 40, channel=channel, time=time * (kind == "note_off"))
            for index in range(count)
            for kind in kinds
        ]

    five = mido.MetaMessage("time_signature", numerator=5, denominator=8)
    seven = mido.MetaMessage("time_signature", numerator=7, denominator=8)
    save("plain", *notes(30, 240))
    save("changing", five, *notes(10, 240), seven, *notes(14, 240), five, *notes(10, 240))
    save("drums", *notes(40, 240, channel=9))
    save("dense", *notes(8000, 0), *notes(1, 6000), *notes(8000, 0), *notes(1, 3000))
    save("empty", five)
    running = bytes.fromhex("00903c50") + b"".join(bytes((0x83, 0x60, 60 + n, 0, 0, 61 + n, 80)) for n in range(12))
    text = bytes.fromhex("00ff010178")  # an event of text does not end the running status
    (folder / "running.mid").write_bytes(
        raw_midi(running + text + bytes((0x83, 0x60, 72, 0, 0, 50, 64, 0x83, 0x60, 50, 0)))
    )
    (folder / "no_status.mid").write_bytes(raw_midi(bytes.fromhex("003c50833c00")))
    out = tmp_path / "out"
    assert main(arguments(weights, folder, out, codec=MODEL_TYPE)) == 0
    samples = {sample[META].source: sample for sample in read(out).values()}
    assert set(samples) == {"plain.mid", "changing.mid", "drums.mid", "dense.mid", "running.mid"}
    assert Manifest.read(out).dropped == {"unreadable": 2}
    assert all(np.isfinite(sample[EVENTS]).all() for sample in samples.values())
    assert samples["drums.mid"][META].tags["key"] is None


def test_training_takes_steps_on_them(weights: dict[str, str], music: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encoders = {"vision_encoder": "v2m-frame-statistics-1", "text_encoder": "v2m-hashed-words-1"}
    assert main(arguments(weights | encoders, music, out, codec=MODEL_TYPE)) == 0
    model = LitMusicLM(
        lm=LMConfig(dim=32, num_layers=1, num_heads=4),
        conditioner=ConditionerConfig(num_layers=1, num_heads=2, head_dim=16, ffn_dim=32),
        optim=OptimConfig(lr=3e-3, lm_lr_scale=1.0, warmup_steps=1),
        window=1.0,
    )
    run = trainer(max_steps=2)
    run.fit(model, ShardData(out, out, batch_size=2, window=1.0, num_workers=0))
    assert np.isfinite(float(run.callback_metrics["train/loss"]))


def test_single_file_is_read(weights: dict[str, str], music: Path, tmp_path: Path) -> None:
    assert main(arguments(weights, music / "a.mid", tmp_path / "out", codec=MODEL_TYPE)) == 0
    assert {sample[META].source for sample in read(tmp_path / "out").values()} == {"a.mid"}


@pytest.mark.parametrize(
    ("kind", "message"), [("empty", "no music"), ("video", "is no music"), ("gone", "no such file")]
)
def test_inputs_without_music_end_in_one_line(
    weights: dict[str, str], tmp_path: Path, capsys: Any, kind: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.mp4").write_bytes(b"x")
    path = {"empty": tmp_path / "empty", "video": tmp_path / "empty" / "a.mp4", "gone": tmp_path / "gone"}[kind]
    assert main(arguments(weights, path, tmp_path / "out", codec=MODEL_TYPE)) in (2, 3)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_paired_and_unpaired_do_not_mix(weights: dict[str, str], music: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(arguments(weights, music, tmp_path / "out", codec=MODEL_TYPE)) == 0
    assert main(arguments(weights, music, tmp_path / "out", codec=MODEL_TYPE, unpaired="false")) == 2
    assert "unpaired True, not" in capsys.readouterr().err


def test_manifest_from_before_the_field_is_of_pairs(weights: dict[str, str], music: Path, tmp_path: Path) -> None:
    assert main(arguments(weights, music, tmp_path / "out", codec=MODEL_TYPE)) == 0
    values = json.loads((tmp_path / "out" / "dataset.json").read_text())
    del values["unpaired"]
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(values))
    assert not Manifest.read(tmp_path / "out").unpaired
