"""Notes of Sketch before rendering: what a musician would check on the page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from tests.sketch.stub_videos import CUTS, compose_piece
from v2m.core.timing import TempoMap
from v2m.core.types import Tags
from v2m.sketch.compose import drums
from v2m.sketch.compose.accompaniment import Accompanist
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.compose.harmony import Key, Voicing, has_parallels, mean_movement, parse_chord
from v2m.sketch.compose.lead_sheet import Note, Part, rng_for
from v2m.sketch.instruments import INSTRUMENTS
from v2m.sketch.plan.planner import Bar, FormSection, Hit, Plan
from v2m.sketch.style import Attack, parse_rhythm
from v2m.sketch.styles import STYLES, choose_style

ALL = list(STYLES)
MANY_CUTS = tuple((round(4 + 3.7 * k + (k * k) % 5 / 3, 2), 0.3 + (k * 3 % 7) / 10) for k in range(24))


def part_of(music: Piece, stem: str) -> list[Part]:
    return [part for part in music.parts if part.stem == stem]


def sections(music: Piece, name: str) -> list[tuple[float, float]]:
    """Return (first beat, end beat) of each section called `name`."""
    bars = music.sheet.plan.bars
    matches = [section for section in music.sheet.plan.sections if section.name == name]
    return [(bars[p.first].start, bars[p.last - 1].start + bars[p.last - 1].beats) for p in matches]


def tune(music: Piece, span: tuple[float, float], beats: int = 8) -> dict[float, int]:
    """Return the opening of the busier melody of a section: onset (in eighths) → pitch relative to the first."""
    windows = [
        [note for note in part.notes if span[0] - 0.1 <= note.beat < span[0] + beats - 0.1]
        for part in part_of(music, "melody")
    ]
    notes = max(windows, key=len)
    return {round(2 * (n.beat - span[0])) / 2: n.pitch - notes[0].pitch for n in reversed(notes)}


def likeness(one: dict[float, int], other: dict[float, int]) -> float:
    """Return the share of common onsets; one counts fully where the contour is within a tone there."""
    if not one or not other:
        return 0.0
    both = set(one) & set(other)
    return sum(0.5 + 0.5 * (abs(one[o] - other[o]) <= 2) for o in both) / len(set(one) | set(other))


@pytest.mark.parametrize("style", ALL)
def test_notes_lie_in_instrument_ranges_and_inside_the_file(style: str) -> None:
    for seed in range(4):
        music = compose_piece(style, seed)
        end = music.sheet.end_beat
        assert {part.stem for part in music.parts} >= {"melody", "harmony", "bass"}
        for part in music.parts:
            low, high = (27, 87) if part.is_drums else INSTRUMENTS[part.program][1:]
            for note in part.notes:
                assert low <= note.pitch <= high, (part.name, note)
                assert 0 <= note.beat < end, (part.name, note)
                assert note.length > 0, (part.name, note)
                assert note.beat + note.length <= end + 1e-6, (part.name, note)
                assert 1 <= note.velocity <= 127, (part.name, note)


@pytest.mark.parametrize("style", ALL)
def test_no_part_overlaps_its_own_notes(style: str) -> None:
    for part in compose_piece(style, 3).parts:
        sounding: dict[int, float] = {}
        for note in sorted(part.notes):
            assert note.beat >= sounding.get(note.pitch, 0.0) - 1e-6, (part.name, note)
            sounding[note.pitch] = note.beat + note.length


def voicings(style: str, seed: int) -> Iterator[list[Voicing]]:
    music = compose_piece(style, seed, duration=90.0, cuts=MANY_CUTS)
    for layer in music.sheet.style.layers:
        if layer.kind in {"pad", "comp", "arp"}:
            accompanist = Accompanist(music.sheet, layer, rng_for("0", "test"))
            yield [accompanist.voice_chord(span) for span in music.sheet.spans]


@pytest.mark.parametrize("style", ALL)
def test_voices_move_little_and_never_cross(style: str) -> None:
    moves: list[float] = []
    for chords in (chords for seed in range(3) for chords in voicings(style, seed)):
        assert all(list(chord) == sorted(set(chord)) for chord in chords)
        moves += [mean_movement(a, b) for a, b in pairwise(chords)]
    assert np.mean(moves) < 2.2, "semitones a voice and chord change"


@pytest.mark.parametrize("style", [name for name in ALL if STYLES[name].common_practice])
def test_common_practice_styles_avoid_parallel_fifths_and_octaves(style: str) -> None:
    pairs = [(a, b) for seed in range(3) for chords in voicings(style, seed) for a, b in pairwise(chords) if a != b]
    assert sum(has_parallels(a, b) for a, b in pairs) <= 0.01 * len(pairs)


def test_returns_of_a_theme_are_similar_varied_and_unlike_other_themes() -> None:
    returns: list[float] = []
    others: list[float] = []
    for style in ALL:
        for seed in range(8):
            music = compose_piece(style, seed, duration=60.0, cuts=((8.0, 0.9), (24.0, 1.0), (40.0, 0.9)))
            first, *again = sections(music, "A")
            opening = tune(music, first)
            for span in again[:1]:
                return_tune = tune(music, span)
                if len(opening) > 2 and len(return_tune) > 2:
                    returns.append(likeness(opening, return_tune))
            others += [likeness(opening, tune(music, span)) for span in sections(music, "B")[:1]]
    assert len(returns) > 20
    assert np.mean(returns) > np.mean(others) + 0.2
    assert np.mean([likeness < 1 for likeness in returns]) > 0.05, "some returns are varied"


@pytest.mark.parametrize("style", ALL)
def test_pieces_end_on_the_tonic(style: str) -> None:
    for seed in range(4):
        music = compose_piece(style, seed)
        last, key = music.sheet.last_bar.start, music.sheet.key
        closing = music.sheet.spans[-1].chord
        assert closing.root == key.tonic

        def at_the_end(stem: str, music: Piece = music, last: int = last) -> list[Note]:
            return [note for part in part_of(music, stem) for note in part.notes if note.beat >= last - 0.02]

        assert {note.pitch % 12 for note in at_the_end("bass")} == {key.tonic}
        final = at_the_end("melody")
        assert {note.pitch % 12 for note in final} <= set(closing.pitch_classes[:2]), "the tonic or the third"
        assert final
        assert all(abs(note.beat + note.length - music.sheet.end_beat) < 0.1 for note in final), "rings to the end"


@pytest.mark.parametrize("style", ALL)
def test_seeds_give_different_pieces(style: str) -> None:
    pieces = [compose_piece(style, seed) for seed in range(5)]
    tunes = {tuple(sorted(tune(music, sections(music, "A")[0]).items())) for music in pieces}
    assert len(tunes) == 5
    assert len({tuple(music.progressions.items()) for music in pieces}) >= 3
    assert len({tuple(part.program for part in music.parts) for music in pieces}) >= 2
    assert len({music.sheet.key.name for music in pieces}) >= 3


def odd_plan() -> Plan:
    """Return a plan with bars of 4 3 5 2 6 4 4 3 and a last one, at 100 beats per minute."""
    lengths = (4, 3, 5, 2, 6, 4, 4, 3, 4)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).tolist()
    sections = (FormSection("A", 0, 0, 4, 0.5), FormSection("B", 0, 4, 7, 0.9), FormSection("ending", 0, 7, 9, 0.4))
    section = (0, 0, 0, 0, 1, 1, 1, 2, 2)
    bars = tuple(Bar(*row) for row in zip(starts, lengths, section, strict=True))
    tempo_map = TempoMap.constant(100.0, start=0.3)
    hits = tuple(Hit(float(tempo_map.beat_to_time(b)), s, b, 0.0, True) for b, s in ((7, 0.8), (14, 1.0)))
    energy = np.array([0.4, 0.5, 0.5, 0.6, 0.9, 0.9, 0.8, 0.4, 0.3])
    return Plan(float(tempo_map.beat_to_time(35)), 100.0, tempo_map, bars, sections, hits, energy)


@pytest.mark.parametrize("style", ALL)
def test_irregular_bars_are_filled_and_every_bar_line_is_played(style: str) -> None:
    plan = odd_plan()
    music = compose(plan, STYLES[style], Tags(), 1)
    attacks = np.array(sorted(note.beat for part in music.parts for note in part.notes))
    for bar in plan.bars:
        assert np.abs(attacks - bar.start).min() < 0.06, bar
    for part in part_of(music, "bass"):
        onsets = np.array([note.beat for note in part.notes])
        assert all(np.abs(onsets - bar.start).min() < 0.06 for bar in plan.bars if bar.section != 2 or bar.start > 30)


@pytest.mark.parametrize(
    ("rhythm", "beats", "expected"),
    [
        ("8-5.", 4, [Attack(0, 2, 8), Attack(2, 1, 5)]),
        ("8-5.", 3, [Attack(0, 2, 8), Attack(2, 1, 5)]),
        ("8-5.", 2, [Attack(0, 2, 8)]),
        ("8-5.", 6, [Attack(0, 2, 8), Attack(2, 1, 5), Attack(4, 2, 8)]),
    ],
)
def test_a_rhythm_is_cut_or_repeated_to_fit_its_bar(rhythm: str, beats: int, expected: list[Attack]) -> None:
    assert list(parse_rhythm(rhythm, 4, 0, beats)) == expected


@pytest.mark.parametrize(
    ("symbol", "tonic", "pcs", "bass"),
    [
        ("I", 0, {0, 4, 7}, 0),
        ("V7", 9, {4, 8, 11, 2}, 4),
        ("bVImaj7", 0, {8, 0, 3, 7}, 8),
        ("iiø7", 9, {11, 2, 5, 9}, 11),
        ("V/3", 0, {7, 11, 2}, 11),
        ("iv6", 0, {5, 8, 0, 2}, 5),
        ("Vsus4", 2, {9, 2, 4}, 9),
        ("i9", 4, {4, 7, 11, 2, 6}, 4),
    ],
)
def test_roman_numerals(symbol: str, tonic: int, pcs: set[int], bass: int) -> None:
    result = parse_chord(symbol, tonic)
    assert (set(result.pitch_classes), result.bass) == (pcs, bass)


def test_scale_steps_follow_the_chord() -> None:
    key = Key(9, "minor", "minor")
    assert key.pitch(35) == 69
    assert key.pitch(34) == 67
    assert key.pitch(34, parse_chord("V", 9)) == 68, "the leading tone over the dominant"


def test_the_tagged_key_is_used() -> None:
    for name, tonic, mode in (("F# minor", 6, "minor"), ("Bb major", 10, "major")):
        key = compose_piece("jazz", 1, Tags(key=name)).sheet.key
        assert (key.tonic, key.mode) == (tonic, mode)


def test_moods_choose_the_mode_without_a_key() -> None:
    modes = [compose_piece("cinematic", s, Tags(moods=["happy"])).sheet.key.mode for s in range(4)]
    modes += [compose_piece("acoustic folk", s, Tags(moods=["melancholic"])).sheet.key.mode for s in range(4)]
    assert modes == ["major"] * 4 + ["minor"] * 4


def test_calm_music_is_softer_than_epic_music() -> None:
    soft, loud = (
        np.mean([n.velocity for p in compose_piece("cinematic", 2, Tags(moods=[mood])).parts for n in p.notes])
        for mood in ("calm", "epic")
    )
    assert soft < loud - 3


@pytest.mark.parametrize("style", ALL)
@pytest.mark.parametrize(
    ("word", "programs"),
    [
        ("piano", {0, 1, 2}),
        ("solo violin", {40, 110}),
        ("strings", {48, 49, 44, 50, 51}),
        ("flute", {73, 75, 77}),
        ("choir", {52, 53}),
        ("bass guitar", {33, 34, 35, 36}),
        ("warm synth", {89, 95, 90, 88, 50, 51, 81, 80, 62, 63, 38, 39}),
    ],
)
def test_a_tagged_instrument_plays(style: str, word: str, programs: set[int]) -> None:
    music = compose_piece(style, 1, Tags(instruments=[word]))
    playing = [
        part for part in music.parts if part.program in programs and not part.is_drums and part.stem != "effects"
    ]
    assert any(len(part.notes) > 4 for part in playing)


def test_tagged_drums_play_in_a_style_without_drums() -> None:
    assert not part_of(compose_piece("ambient", 1), "drums")
    assert len(part_of(compose_piece("ambient", 1, Tags(instruments=["drums"])), "drums")[0].notes) > 20


@pytest.mark.parametrize("style", ALL)
def test_negative_tags_exclude_instruments(style: str) -> None:
    music = compose_piece(style, 2, Tags(negative=["no drums", "piano", "guitars"]))
    assert not any(part.is_drums for part in music.parts)
    assert not {part.program for part in music.parts} & {0, 1, 2, 24, 25, 26, 27, 28, 29, 30}
    assert not part_of(compose_piece(style, 2, Tags(negative=["bass"])), "bass")


@pytest.mark.parametrize(
    ("tags", "style"),
    [
        (Tags(genres=["techno"]), "electronic"),
        (Tags(genres=["synthwave", "jazz"]), "electronic"),
        (Tags(genres=["hip hop"]), "lo-fi"),
        (Tags(genres=["epic trailer"]), "cinematic"),
        (Tags(genres=["indie folk"]), "acoustic folk"),
        (Tags(genres=["indie rock"]), "rock"),
        (Tags(genres=["bossa nova"]), "jazz"),
        (Tags(genres=["Classical"]), "orchestral"),
        (Tags(genres=["drone"]), "ambient"),
        (Tags(genres=["unheard of"], moods=["peaceful"]), "ambient"),
        (Tags(genres=["jazz", "rock"], negative=["jazz"]), "rock"),
        (Tags(), "cinematic"),
        *((Tags(genres=[name]), name) for name in ALL),
    ],
)
def test_genres_then_moods_choose_the_style(tags: Tags, style: str) -> None:
    assert choose_style(tags).name == style


def test_drum_fills_lead_to_strong_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[int] = []
    fill_notes = drums._fill_notes  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        drums, "_fill_notes", lambda sheet, fill, bar: filled.append(bar) or fill_notes(sheet, fill, bar)
    )
    cuts = tuple((0.5 * beat, 1.0 if beat % 16 == 8 else 0.3) for beat in range(4, 112, 4))  # 120 BPM
    plan = compose_piece("rock", 1, Tags(instruments=["drums"]), duration=60.0, cuts=cuts).sheet.plan
    strong = [hit.beat for hit in plan.hits if hit.strength == 1.0 and hit.downbeat]
    led = [number for number, bar in enumerate(plan.bars[:-1]) if bar.start + bar.beats in strong]
    themes = [number for number in led if plan.sections[plan.bars[number].section].name not in {"intro", "ending"}]
    assert len(themes) >= 4
    assert set(themes) <= set(filled)


@pytest.mark.parametrize("tags", [Tags(), Tags(negative=["drums"])], ids=["drums", "no drums"])
def test_cuts_get_accents(tags: Tags) -> None:
    """Every cut that is met has an accent in its frame, and every note written there is played with it."""
    cuts = (*CUTS, (8.13, 0.2), (16.47, 0.3), (22.9, 0.2), (27.9, 0.4), (28.8, 0.2))
    for style in ALL:
        music = compose_piece(style, 1, tags, cuts=cuts)
        plan = music.sheet.plan
        assert len(plan.hits) >= 7, style
        effects = [note.beat for part in part_of(music, "effects") for note in part.notes]
        sounded = plan.tempo_map.beat_to_time(effects)
        everything = plan.tempo_map.beat_to_time([note.beat for part in music.parts for note in part.notes])
        for hit in plan.hits:
            assert np.abs(sounded - hit.time).min() <= abs(hit.offset) + 1e-6, (style, hit)
        exact = [hit for hit in plan.hits if abs(hit.offset - 0.005) < 1e-6]
        near = [np.abs(everything - hit.time - hit.offset) for hit in exact]
        if style != "acoustic folk":  # whose guitars are strummed
            assert all(((gaps < 1e-6) | (gaps > 0.012)).all() for gaps in near), f"{style}: attacks apart at a cut"


def test_long_tones_of_bowed_and_blown_melodies_swell() -> None:
    (lead, *_) = [part for part in compose_piece("orchestral", 1).parts if part.stem == "melody"]
    long = [note for note in lead.notes if note.length >= 2.0]
    assert long
    beats, values = zip(*lead.expression, strict=True)
    for note in long:
        start, middle, end = np.interp(
            [note.beat + 0.1, note.beat + 0.6 * note.length, note.beat + note.length - 0.1], beats, values
        )
        assert middle > start + 0.04
        assert middle > end + 0.04
    plucked = [part for part in compose_piece("acoustic folk", 1).parts if part.name in {"dulcimer", "banjo"}]
    assert plucked
    assert not any(part.expression for part in plucked)
