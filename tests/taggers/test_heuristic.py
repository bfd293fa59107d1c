"""Tags from pictures whose look is set by hand, and from real frames of the example clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from v2m.core.errors import UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import Cut, Pixels, ProgressFn, Tags, Video, VisualFeatures
from v2m.media import video as opening
from v2m.taggers.heuristic import GENRES, HeuristicTagger

EXAMPLE = Path(__file__).parents[2] / "data" / "examples" / "bunny_wakes.mp4"
SECONDS = 60.0


@dataclass
class Seen:
    """A frame source that has been measured already."""

    result: VisualFeatures

    def frames_at(self, times: Sequence[float], width: int | None = None) -> Pixels:
        raise AssertionError("the heuristic tagger reads no frames of its own")

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:
        return self.result


def look(
    *,
    brightness: float = 0.4,
    saturation: float = 0.35,
    contrast: float = 0.2,
    warmth: float = 0.0,
    motion: float = 0.15,
    cuts: float = 8,
    hue: int = 0,
) -> Video:
    """A minute of film that looks like this throughout, with `cuts` evenly spread and all color of one `hue`."""
    times = np.arange(SECONDS * 10) / 10
    values = {"brightness": brightness, "saturation": saturation, "contrast": contrast, "motion": motion, "flow": 0}
    curves = {name: np.full(len(times), value) for name, value in values.items()}
    spread = tuple(Cut(SECONDS * (n + 1) / (cuts + 1), 0.5) for n in range(round(cuts)))
    picture = VisualFeatures(10.0, times, **curves, hues=np.eye(12)[hue], warmth=warmth, cuts=spread)
    container = Video(Path("film.mp4"), "mp4", "h264", 640, 360, 0, 10.0, SECONDS, times, 0.0, ())
    return replace(container, source=Seen(picture))


def looking(field: str, value: float) -> Video:
    settings: dict[str, Any] = {field: value}
    return look(**settings)


PLAUSIBLE = {
    "ambient": look(brightness=0.45, saturation=0.25, contrast=0.12, warmth=-0.5, motion=0.02, cuts=1),  # mist at sea
    "lo-fi": look(brightness=0.3, saturation=0.15, contrast=0.15, warmth=0.2, motion=0.06, cuts=3),  # rain on a window
    "acoustic folk": look(brightness=0.5, saturation=0.45, warmth=0.6, motion=0.1, cuts=4),  # a picnic
    "jazz": look(brightness=0.18, saturation=0.55, warmth=0.5, motion=0.15, cuts=10),  # a bar at night
    "cinematic": look(brightness=0.15, saturation=0.2, warmth=-0.4, motion=0.2, cuts=15),  # a thriller
    "orchestral": look(brightness=0.52, saturation=0.45, motion=0.25, cuts=18),  # mountains from the air
    "electronic": look(brightness=0.4, saturation=0.7, contrast=0.25, warmth=-0.3, motion=0.8, cuts=60),  # neon, dance
    "rock": look(brightness=0.25, saturation=0.25, contrast=0.25, warmth=0.25, motion=1.0, cuts=50),  # skateboards
}


@pytest.mark.parametrize("genre", GENRES)
def test_every_style_has_pictures_that_lead_to_it(genre: str) -> None:
    tags = HeuristicTagger().tag(PLAUSIBLE[genre], Tags())
    assert tags.genres[0] == genre
    assert 1 <= len(tags.genres) <= 2
    assert tuple(tags.instruments) == GENRES[genre].instruments
    low, high = GENRES[genre].tempo_range
    assert tags.tempo is not None
    assert low <= tags.tempo <= high


def test_a_second_genre_is_named_only_where_the_picture_lies_between_two() -> None:
    assert HeuristicTagger().tag(PLAUSIBLE["ambient"], Tags()).genres == ("ambient",)
    between = look(brightness=0.35, saturation=0.3, warmth=-0.1, motion=0.25, cuts=16)
    assert set(HeuristicTagger().tag(between, Tags()).genres) == {"orchestral", "cinematic"}


def test_it_is_a_tagger_and_gives_the_same_tags_again() -> None:
    tagger: Tagger = HeuristicTagger()
    video = opening.open(EXAMPLE)
    assert tagger.tag(video, Tags()) == HeuristicTagger().tag(opening.open(EXAMPLE), Tags())


@pytest.mark.parametrize(
    ("field", "low", "high"), [("motion", 0.02, 0.8), ("cuts", 0, 60), ("saturation", 0.1, 0.8), ("contrast", 0.1, 0.3)]
)
def test_what_stirs_raises_arousal_and_tempo(field: str, low: float, high: float) -> None:
    tagger = HeuristicTagger(["orchestral"])
    dull, lively = looking(field, low), looking(field, high)
    assert tagger.measure(dull)["arousal"] < tagger.measure(lively)["arousal"]
    assert (tagger.tag(dull, Tags()).tempo or 0) < (tagger.tag(lively, Tags()).tempo or 0)


@pytest.mark.parametrize(
    ("field", "low", "high"), [("brightness", 0.1, 0.6), ("saturation", 0.1, 0.8), ("warmth", -0.8, 0.8)]
)
def test_light_and_color_raise_valence(field: str, low: float, high: float) -> None:
    assert (
        HeuristicTagger().measure(looking(field, low))["valence"]
        < HeuristicTagger().measure(looking(field, high))["valence"]
    )


def test_tempo_moves_smoothly_with_the_picture() -> None:
    tempos = [HeuristicTagger(["jazz"]).tag(look(motion=motion), Tags()).tempo or 0 for motion in np.linspace(0, 1, 50)]
    assert max(np.diff(tempos)) < 3
    assert min(np.diff(tempos)) >= 0


def test_mode_and_mood_follow_valence_and_tonic_the_hue() -> None:
    gloomy, cheerful = (HeuristicTagger().tag(look(brightness=light, hue=4), Tags()) for light in (0.08, 0.65))
    assert gloomy.key == "E minor"
    assert cheerful.key == "E major"
    assert set(gloomy.moods).isdisjoint(cheerful.moods)


def test_hints_win() -> None:
    hints = Tags(
        caption="mine", genres="waltz", instruments="kazoo", moods="silly", timbres="tinny", tempo=200, key="F# minor"
    )
    assert HeuristicTagger().tag(PLAUSIBLE["ambient"], hints) == hints


@pytest.mark.parametrize(
    ("hint", "genre"),
    [
        *((name, name) for name in GENRES),
        ("Techno", "electronic"),
        ("indie folk", "acoustic folk"),
        ("hard bop, swing", "jazz"),
        ("heavy metal", "rock"),
        ("baroque", "orchestral"),
    ],
)
def test_the_rest_follows_a_hinted_genre(hint: str, genre: str) -> None:
    for video in PLAUSIBLE.values():
        tags = HeuristicTagger().tag(video, Tags(genres=hint))
        assert list(tags.genres) == hint.split(", ")
        assert tuple(tags.instruments) == GENRES[genre].instruments
        assert GENRES[genre].tempo_range[0] <= (tags.tempo or 0) <= GENRES[genre].tempo_range[1]


def test_an_unknown_genre_leaves_instruments_and_tempo_to_the_generator() -> None:
    tags = HeuristicTagger().tag(PLAUSIBLE["rock"], Tags(genres="gamelan"))
    assert tags.genres == ("gamelan",)
    assert tags.instruments == ()
    assert tags.tempo is None
    assert tags.moods
    assert tags.key


def test_what_is_not_wanted_is_left_out() -> None:
    tags = HeuristicTagger().tag(PLAUSIBLE["rock"], Tags(negative="rock, drums"))
    assert "rock" not in tags.genres
    assert tags.genres
    assert not any(
        "drum" in name for name in HeuristicTagger().tag(look(), Tags(genres="rock", negative="drum")).instruments
    )
    assert HeuristicTagger().tag(look(), Tags(negative=list(GENRES))).genres == ()


def test_the_choice_can_be_narrowed() -> None:
    for video in PLAUSIBLE.values():
        assert set(HeuristicTagger(["jazz", "lo-fi"]).tag(video, Tags()).genres) <= {"jazz", "lo-fi"}
    with pytest.raises(UsageError, match="polka"):
        HeuristicTagger(["polka"])
    with pytest.raises(UsageError):
        HeuristicTagger([])


def test_the_caption_states_facts() -> None:
    def caption(video: Video) -> str:
        return HeuristicTagger().tag(video, Tags()).caption

    busy = look(brightness=0.6, saturation=0.6, warmth=0.5, motion=0.8, cuts=7)
    assert caption(busy) == "bright, colorful, warm, fast-moving picture with 7 cuts"
    still = look(brightness=0.1, saturation=0.05, warmth=-0.5, motion=0, cuts=0)
    assert caption(still) == "dark, gray, cool, still picture with no cuts"
    assert caption(look(cuts=1)).endswith("with one cut")


def test_measured_gives_plain_rounded_values() -> None:
    video = look(brightness=0.41234, warmth=-0.3, motion=0.2, cuts=6, hue=8)
    facts = HeuristicTagger().measure(video)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["brightness"] == 0.412
    assert facts["warmth"] == -0.3
    assert facts["cuts_per_minute"] == 6
    assert facts["hues"] == ["blue"]
    assert facts["cuts"][0] == {"time": round(60 / 7, 3), "strength": 0.5}
    assert {"saturation", "contrast", "motion", "arousal", "valence"} < set(facts)


def test_the_example_clip_is_cheerful_grass_under_a_blue_sky() -> None:
    video = opening.open(EXAMPLE)
    tags, facts = HeuristicTagger().tag(video, Tags()), HeuristicTagger().measure(video)
    assert tags.key is not None
    assert tags.key.endswith("major")
    assert tags.genres[0] in {"orchestral", "acoustic folk"}
    assert set(facts["hues"]) == {"yellow", "azure"}
    assert len(facts["cuts"]) == 10
    assert "10 cuts" in tags.caption
