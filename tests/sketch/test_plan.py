"""Plans of random cuts: bounds, bars, form and ending; and beats that meet the cuts."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from v2m.analysis.synchrony import cut_alignment
from v2m.core.types import Cut, Floats, VisualFeatures
from v2m.sketch.plan import beat_search
from v2m.sketch.plan.beat_grid import AccentPosition
from v2m.sketch.plan.planner import MAX_ACCENT_SHIFT_S, Plan, describe_plan, plan_piece

ACCENTS = tuple(AccentPosition(at, at, weight) for at, weight in ((0.5, 0.6), (0.25, 0.25), (0.75, 0.25)))
ROUNDING = 0.005 + 1e-9  # of a change of tempo: beats last a whole number of hundredths of the tag's


def make_features(cuts: list[Cut], duration: float, motion: Floats | None = None) -> VisualFeatures:
    times = np.arange(max(1, int(np.ceil(duration * 10)))) / 10
    flat = np.zeros_like(times)
    return VisualFeatures(
        10.0, times, flat, flat, flat, flat if motion is None else motion, flat, np.zeros(12), 0.0, tuple(cuts)
    )


def random_cuts(rng: np.random.Generator, duration: float, per_second: float, least: float = 0.0) -> list[Cut]:
    """Return cuts at random times, at least `least` seconds apart."""
    times: list[float] = []
    for time_s in np.sort(rng.uniform(0, duration, rng.poisson(per_second * duration))):
        if not times or time_s - times[-1] >= least:
            times.append(float(time_s))
    return [Cut(time_s, float(rng.uniform(0.1, 1))) for time_s in times]


def tempi(result: Plan) -> Floats:
    return 60 * np.diff(result.tempo_map.beats) / np.diff(result.tempo_map.times)


def check(result: Plan, steadiness: float, beats_per_bar: int) -> None:
    """Assert the invariants of every plan."""
    duration = result.duration
    assert (np.abs(tempi(result) / result.tempo - 1) <= 0.06 + 1e-9).all(), "tempo leaves its bounds"
    lengths = np.diff(result.tempo_map.beat_to_time(np.arange(result.bars[-1].start + result.bars[-1].beats + 1)))
    changes = np.abs(np.diff(lengths)) * result.tempo / 60
    opens = np.isin(np.arange(1, len(lengths)), [bar.start for bar in result.bars])
    free = np.sqrt(1 - steadiness)
    assert (changes[opens] <= 0.04 * free + ROUNDING).all(), "the tempo jumps at a bar line"
    assert (changes[~opens] <= 0.015 * free + ROUNDING).all(), "the tempo jumps inside a bar"
    if steadiness == 1:
        assert np.ptp(tempi(result)) < 1e-6, "a steady piece changes tempo"
    assert (np.diff(result.beats) > 0).all()
    assert result.beats[0] >= 0
    assert result.beats[-1] <= duration
    assert result.beats[0] <= 0.6

    starts = [bar.start for bar in result.bars]
    assert starts == [0, *np.cumsum([bar.beats for bar in result.bars])[:-1]], "bars leave a gap"
    last = result.bars[-1]
    within = result.tempo_map.beat_to_time(np.arange(last.start, last.start + last.beats))
    assert within[-1] < duration <= result.tempo_map.beat_to_time(last.start + last.beats) + 1e-6, (
        "the last bar ends elsewhere"
    )
    for index, bar in enumerate(result.bars[:-1]):
        assert bar.beats >= 2
        assert abs(bar.beats - beats_per_bar) <= 2
        if bar.beats != beats_per_bar and index > 0:
            end = result.downbeats[index + 1]
            cuts = [hit for hit in result.hits if abs(hit.time - end) <= 0.05 and hit.strength >= 0.5]
            assert cuts or end < 16 * 60 / result.tempo, f"bar {index} is irregular for nothing"

    assert result.sections[0].first == 0
    assert result.sections[-1].last == len(result.bars)
    assert result.sections[-1].name == "ending"
    for section, following in zip(result.sections[:-1], result.sections[1:], strict=True):
        assert section.first < section.last == following.first
    for index, section in enumerate(result.sections):
        assert section.variant == [p.name for p in result.sections[:index]].count(section.name)
        assert {bar.section for bar in result.bars[section.first : section.last]} == {index}
    assert result.energy.shape == (len(result.bars),)
    assert ((result.energy >= 0) & (result.energy <= 1)).all()
    for hit in result.hits:
        assert abs(hit.offset) <= 0.07
        written = float(result.tempo_map.beat_to_time(hit.beat)) - hit.time
        assert abs(hit.offset - written) <= MAX_ACCENT_SHIFT_S + 1e-9
        assert abs(hit.offset) <= abs(written) + 0.005 + 1e-9, "an accent is moved away from its cut"
        assert hit.downbeat == (hit.beat in starts)


@pytest.mark.parametrize("steadiness", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("beats_per_bar", [3, 4, 6])
def test_random_cuts_give_a_valid_plan(steadiness: float, beats_per_bar: int) -> None:
    rng = np.random.default_rng(int(10 * steadiness) + beats_per_bar)
    for trial in range(40):
        duration = float(np.exp(rng.uniform(np.log(0.03), np.log(150))))
        cuts = random_cuts(rng, duration, float(rng.choice([0, 0.05, 0.3, 1, 4])))
        tempo = float(rng.uniform(30, 300) if trial % 4 == 0 else rng.uniform(60, 160))
        motion = rng.random(len(make_features([], duration).times)) if trial % 2 else None
        features = make_features(cuts, duration, motion)
        result = plan_piece(
            features, duration, tempo, trial, beats_per_bar=beats_per_bar, steadiness=steadiness,
            accents=ACCENTS if trial % 3 else (),
        )  # fmt: skip
        check(result, steadiness, beats_per_bar)
        assert len(result.hits) + len(result.missed) == len([cut for cut in cuts if 0 < cut.time < duration])
        json.dumps(describe_plan(result), allow_nan=False)


@pytest.mark.parametrize("steadiness", [0.5, 1.0])
@pytest.mark.parametrize("times", [[0.1], [19.95], [0.02, 0.1, 19.9], [10.0, 10.01, 10.02], [0.0, 20.0]])
def test_cuts_at_the_ends_and_coincident_cuts(times: list[float], steadiness: float) -> None:
    result = plan_piece(make_features([Cut(t, 1.0) for t in times], 20.0), 20.0, 110.0, 0, steadiness=steadiness)
    check(result, steadiness, 4)
    assert len(result.hits) + len(result.missed) == sum(0 < t < 20 for t in times)


@pytest.mark.parametrize("duration", [0.03, 0.5, 1.0, 2.0, 3.5])
def test_a_video_shorter_than_a_bar_gets_one_chord(duration: float) -> None:
    result = plan_piece(make_features([], duration), duration, 100.0, 0)
    check(result, 0.5, 4)
    assert [section.name for section in result.sections] == ["ending"]
    assert result.beats.tolist() == [0.0]


@pytest.mark.parametrize("steadiness", [0.5, 1.0])
def test_the_final_chord_lasts_about_a_bar(steadiness: float) -> None:
    for duration in np.linspace(8, 40, 23):
        for tempo in (70.0, 100.0, 140.0):
            result = plan_piece(make_features([], float(duration)), float(duration), tempo, 0, steadiness=steadiness)
            assert 1.5 <= duration - result.downbeats[-1] <= 4.5


@pytest.mark.parametrize("steadiness", [0.0, 0.5, 1.0])
def test_cuts_on_a_regular_grid_are_all_met(steadiness: float) -> None:
    """Cuts planted on a grid of 100 BPM, the strong ones on its bar lines; the tag says 97."""
    rng = np.random.default_rng(5)
    beats = np.sort(rng.choice(np.arange(1, 92), 30, replace=False))
    cuts = [Cut(0.3 + 0.6 * int(beat), 1.0 if beat % 4 == 0 else 0.3) for beat in beats]
    result = plan_piece(make_features(cuts, 60.0), 60.0, 97.0, 0, steadiness=steadiness)
    check(result, steadiness, 4)
    assert not result.missed
    assert np.median(tempi(result)) == pytest.approx(100.0, rel=2e-3)
    assert {bar.beats for bar in result.bars[:-1]} == {4}
    assert all(hit.downbeat == (hit.strength == 1.0) for hit in result.hits)


@pytest.mark.parametrize("steadiness", [0.5, 1.0])
def test_a_late_first_cut_does_not_delay_the_start(steadiness: float) -> None:
    """At 60 BPM every cut lies 0.8 s after a whole second: perfect from there on, but too late to begin."""
    result = plan_piece(
        make_features([Cut(0.8 + k, 0.4) for k in range(38)], 40.0), 40.0, 60.0, 0, steadiness=steadiness
    )
    check(result, steadiness, 4)
    assert result.beats[0] <= 0.6


@pytest.mark.parametrize("steadiness", [0.0, 0.5, 1.0])
def test_irregular_bars_are_rare(steadiness: float) -> None:
    irregular, bars = 0, 0
    for seed in range(6):
        result = plan_piece(
            make_features(random_cuts(np.random.default_rng(seed), 60.0, 1.0), 60.0),
            60.0,
            100.0,
            0,
            steadiness=steadiness,
        )
        irregular += describe_plan(result)["irregular_bars"]
        bars += len(result.bars)
    assert irregular / bars < 0.12 - 0.08 * steadiness


def test_a_strong_cut_off_the_bar_shortens_the_bar_before_it() -> None:
    """A cut on each downbeat of 100 BPM, but for one bar that is a beat short."""
    counts = [4, 4, 4, 4, 3, 4, 4, 4, 4, 4, 4]
    cuts = [Cut(0.6 * int(beat), 1.0) for beat in np.cumsum(counts)]
    result = plan_piece(make_features(cuts, 30.0), 30.0, 100.0, 0)
    assert [bar.beats for bar in result.bars[:11]] == counts
    assert all(hit.downbeat for hit in result.hits)
    assert not result.missed


@pytest.mark.parametrize(("steadiness", "floor"), [(0.0, 0.7), (0.5, 0.68), (1.0, 0.66)])
def test_hits_are_far_above_chance(steadiness: float, floor: float) -> None:
    """Mean of hits − chance at ±40 ms over random cutting of 45 s, shots of half a second and longer."""
    above, exact = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cuts = random_cuts(rng, 45.0, 0.5, least=0.5)
        result = plan_piece(
            make_features(cuts, 45.0), 45.0, (80.0, 100.0, 120.0)[seed % 3], seed, steadiness=steadiness,
            accents=ACCENTS,
        )  # fmt: skip
        alignment = cut_alignment([cut.time for cut in cuts], result.beats, duration=45.0, accents=result.accents)
        assert alignment.hits_40ms is not None
        assert alignment.chance_40ms is not None
        above.append(alignment.hits_40ms - alignment.chance_40ms)
        strongest = max(cuts, key=lambda cut: cut.strength)
        exact.append(any(hit.time == strongest.time and abs(hit.offset) <= 0.02 for hit in result.hits))
    assert np.mean(above) > floor
    assert np.mean(exact) > 0.8  # a cut in the last half second cannot be met


def test_accents_meet_cuts_off_the_beat_and_under_the_final_chord() -> None:
    """At 100 BPM and one tempo: cuts on beats, but for two on an eighth and a sixteenth, and one near the end."""
    cuts = [Cut(0.6 * beat, 0.5) for beat in range(1, 40)] + [Cut(24.3, 0.4), Cut(24.75, 0.4), Cut(29.1, 0.4)]
    features = make_features(sorted(cuts, key=lambda cut: cut.time), 30.0)
    result = plan_piece(features, 30.0, 100.0, 0, steadiness=1.0, accents=ACCENTS)
    assert {hit.time: hit.beat for hit in result.hits if hit.time > 24} == {24.3: 40.5, 24.75: 41.25, 29.1: 48.5}
    assert result.beats[-1] < 29.1
    assert np.abs(result.accents[-3:] - [24.3, 24.75, 29.1]).max() < 0.02
    without = plan_piece(features, 30.0, 100.0, 0, steadiness=1.0)
    assert {24.3, 24.75, 29.1} == {cut.time for cut in without.missed}


def test_downbeats_prefer_strong_cuts() -> None:
    strong, weak = [], []
    for seed in range(12):
        cuts = random_cuts(np.random.default_rng(seed), 45.0, 0.5, least=0.5)
        result = plan_piece(make_features(cuts, 45.0), 45.0, 100.0, seed)
        downbeats = {hit.time for hit in result.hits if hit.downbeat}
        for cut in cuts:
            (strong if cut.strength > 0.7 else weak if cut.strength < 0.4 else []).append(cut.time in downbeats)
    assert np.mean(strong) > 0.4  # chance is 0.06
    assert np.mean(strong) > 2 * np.mean(weak)


def test_steadiness_reduces_tempo_changes() -> None:
    cuts = random_cuts(np.random.default_rng(2), 60.0, 0.5)
    result = [plan_piece(make_features(cuts, 60.0), 60.0, 100.0, 0, steadiness=s) for s in (0.0, 0.7, 1.0)]
    largest = [np.abs(np.diff(tempi(one), prepend=tempi(one)[0])).max() for one in result]
    assert largest[0] > largest[1] > largest[2]


@pytest.mark.parametrize("steadiness", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("deviation", [0.0, 0.03])
def test_the_tempo_stays_within_the_deviation_that_is_asked_for(steadiness: float, deviation: float) -> None:
    cuts = [Cut(float(time_s), 1.0) for time_s in np.arange(1.0, 38.0, 60 / 116)]
    free, bounded = (
        plan_piece(make_features(cuts, 40.0), 40.0, 110.0, 0, steadiness=steadiness, max_tempo_deviation=limit)
        for limit in (0.06, deviation)
    )
    assert np.abs(tempi(free) / 110 - 1).max() > deviation + 0.01, "the bound makes no difference"
    assert np.abs(tempi(bounded) / 110 - 1).max() <= deviation + 1e-6


def test_planning_is_deterministic() -> None:
    cuts = random_cuts(np.random.default_rng(1), 90.0, 0.4)
    one, two = (plan_piece(make_features(cuts, 90.0), 90.0, 100.0, 4) for _ in range(2))
    assert describe_plan(one) == describe_plan(two)
    assert one.sections == two.sections
    assert (one.energy == two.energy).all()
    forms = {
        tuple(describe_plan(plan_piece(make_features(cuts, 90.0), 90.0, 100.0, seed))["form"]) for seed in range(8)
    }
    assert len(forms) > 1


def test_sections_start_at_the_strongest_cuts() -> None:
    """A weak cut on every bar line of 100 BPM, and two strong ones inside: those begin sections."""
    cuts = [Cut(2.4 * bar, 1.0 if bar in {10, 16} else 0.1) for bar in range(1, 24)]
    result = plan_piece(make_features(cuts, 60.0), 60.0, 100.0, 0)
    assert {10, 16} <= {section.first for section in result.sections}


@pytest.mark.parametrize("duration", [60.0, 180.0, 1200.0])
def test_a_video_without_cuts_has_a_form(duration: float) -> None:
    result = plan_piece(make_features([], duration), duration, 100.0, 0)
    names = [section.name for section in result.sections]
    assert names[0] == "intro"
    assert len(set(names)) >= 3 - (duration < 100)
    assert max(section.variant for section in result.sections) >= 1
    lengths = [section.last - section.first for section in result.sections[1:-1]]
    assert np.mean([length % 4 == 0 for length in lengths]) > 0.6
    assert max(lengths) <= 32


def test_energy_follows_motion_and_falls_in_the_ending() -> None:
    times = np.arange(1200) / 10
    result = plan_piece(make_features([], 120.0, np.where((times > 40) & (times < 80), 0.9, 0.1)), 120.0, 100.0, 0)
    middle = (result.downbeats > 45) & (result.downbeats < 75)
    outside = (result.downbeats < 35) | (result.downbeats > 85)
    assert result.energy[middle].min() > result.energy[outside].max() + 0.3
    still = plan_piece(make_features([], 60.0), 60.0, 100.0, 0)
    assert still.energy[-1] < 0.6 * still.energy[still.sections[-1].first - 1]


def test_windowed_search_loses_few_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = random_cuts(np.random.default_rng(9), 290.0, 0.3)
    whole = plan_piece(make_features(cuts, 290.0), 290.0, 100.0, 0)
    monkeypatch.setattr(beat_search, "WINDOW_BEATS", 120)
    pieced = plan_piece(make_features(cuts, 290.0), 290.0, 100.0, 0)
    check(pieced, 0.5, 4)
    assert len(pieced.hits) >= 0.95 * len(whole.hits)


def test_cost_of_a_plan_grows_with_its_length() -> None:
    """An hour against a quarter of it, both with a cut every 3.6 s: 4 times the work, where a quadratic cost is 16."""

    def plan(duration: float, steadiness: float) -> float:
        cuts = random_cuts(np.random.default_rng(9), duration, 1000 / 3600)
        features = make_features(cuts, duration)
        start = time.process_time()
        result = plan_piece(features, duration, 100.0, 0, steadiness=steadiness)
        seconds = time.process_time() - start
        check(result, steadiness, 4)
        return seconds

    for steadiness in (0.0, 1.0):
        assert plan(3600.0, steadiness) < 10 * plan(900.0, steadiness)


def test_describe_plan() -> None:
    cuts = [Cut(2.4 * bar + 0.6 * (bar > 5), 1.0) for bar in range(1, 12)] + [Cut(14.75, 0.2)]
    result = plan_piece(make_features(cuts, 31.0), 31.0, 100.0, 0)
    described = describe_plan(result)
    assert described["bars"] == len(result.bars)
    assert described["irregular_bars"] == 1
    assert described["tempo_range"] == pytest.approx([100.0, 100.0], abs=0.5)
    assert described["alignment"]["n"] == 12
    assert described["alignment"]["hits"] == pytest.approx(11 / 12, abs=1e-4)
    assert [hit["time"] for hit in described["hits"]] == pytest.approx([cut.time for cut in cuts[:-1]], abs=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"duration": 0.0}, {"tempo": 0.0}, {"beats_per_bar": 1}, {"steadiness": 1.5}, {"tempo": float("nan")}]
)
def test_invalid_arguments_are_refused(wrong: dict[str, float]) -> None:
    kwargs: dict[str, float] = {"duration": 10.0, "tempo": 100.0, "beats_per_bar": 4, "steadiness": 0.5} | wrong
    with pytest.raises(ValueError, match="must be positive"):
        plan_piece(
            make_features([], 10.0), kwargs["duration"], kwargs["tempo"], 0,
            beats_per_bar=int(kwargs["beats_per_bar"]), steadiness=kwargs["steadiness"],
        )  # fmt: skip


def test_a_deviation_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_tempo_deviation -0\.1 must"):
        plan_piece(make_features([], 10.0), 10.0, 100.0, 0, max_tempo_deviation=-0.1)
