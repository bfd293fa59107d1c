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
class MeasuredFrames:
    """A frame source that has been measured already."""

    result: VisualFeatures

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: object = None) -> Pixels:
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
    picture = VisualFeatures(10.0, times, **curves, hues=np.eye(12)[hue], warmth=warmth, cuts=spread, transitions=())
    container = Video(Path("film.mp4"), "mp4", "h264", 640, 360, 0, 10.0, SECONDS, times, 0.0, ())
    return replace(container, source=MeasuredFrames(picture))


def picture_with(field: str, value: float) -> Video:
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
def test_every_genre_is_chosen_for_a_plausible_picture(genre: str) -> None:
    tags = HeuristicTagger().tag(PLAUSIBLE[genre], Tags())
    assert tags.genres[0] == genre
    assert 1 <= len(tags.genres) <= 2
    assert tuple(tags.instruments) == GENRES[genre].instruments
    low, high = GENRES[genre].tempo_range
    assert tags.tempo is not None
    assert low <= tags.tempo <= high


def test_second_genre_is_named_only_for_a_picture_between_two_genres() -> None:
    assert HeuristicTagger().tag(PLAUSIBLE["ambient"], Tags()).genres == ("ambient",)
    between = look(brightness=0.35, saturation=0.3, warmth=-0.1, motion=0.25, cuts=16)
    assert set(HeuristicTagger().tag(between, Tags()).genres) == {"orchestral", "cinematic"}


def test_heuristic_tagger_is_deterministic() -> None:
    tagger: Tagger = HeuristicTagger()
    video = opening.open(EXAMPLE)
    assert tagger.tag(video, Tags()) == HeuristicTagger().tag(opening.open(EXAMPLE), Tags())


@pytest.mark.parametrize(
    ("field", "low", "high"), [("motion", 0.02, 0.8), ("cuts", 0, 60), ("saturation", 0.1, 0.8), ("contrast", 0.1, 0.3)]
)
def test_arousal_and_tempo_rise_with_motion_cuts_saturation_and_contrast(field: str, low: float, high: float) -> None:
    tagger = HeuristicTagger(["orchestral"])
    dull, lively = picture_with(field, low), picture_with(field, high)
    assert tagger.measure(dull)["arousal"] < tagger.measure(lively)["arousal"]
    assert (tagger.tag(dull, Tags()).tempo or 0) < (tagger.tag(lively, Tags()).tempo or 0)


@pytest.mark.parametrize(
    ("field", "low", "high"), [("brightness", 0.1, 0.6), ("saturation", 0.1, 0.8), ("warmth", -0.8, 0.8)]
)
def test_valence_rises_with_brightness_saturation_and_warmth(field: str, low: float, high: float) -> None:
    assert (
        HeuristicTagger().measure(picture_with(field, low))["valence"]
        < HeuristicTagger().measure(picture_with(field, high))["valence"]
    )


def test_tempo_rises_smoothly_with_motion() -> None:
    tempos = [HeuristicTagger(["jazz"]).tag(look(motion=motion), Tags()).tempo or 0 for motion in np.linspace(0, 1, 50)]
    assert max(np.diff(tempos)) < 3
    assert min(np.diff(tempos)) >= 0


def test_mode_and_moods_follow_valence_and_tonic_follows_hue() -> None:
    dark, bright = (HeuristicTagger().tag(look(brightness=light, hue=4), Tags()) for light in (0.08, 0.65))
    assert dark.key == "E minor"
    assert bright.key == "E major"
    assert set(dark.moods).isdisjoint(bright.moods)


def test_hints_replace_all_measured_tags() -> None:
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
def test_instruments_and_tempo_follow_a_hinted_genre(hint: str, genre: str) -> None:
    for video in PLAUSIBLE.values():
        tags = HeuristicTagger().tag(video, Tags(genres=hint))
        assert list(tags.genres) == hint.split(", ")
        assert tuple(tags.instruments) == GENRES[genre].instruments
        assert GENRES[genre].tempo_range[0] <= (tags.tempo or 0) <= GENRES[genre].tempo_range[1]


def test_unknown_hinted_genre_leaves_instruments_and_tempo_unset() -> None:
    tags = HeuristicTagger().tag(PLAUSIBLE["rock"], Tags(genres="gamelan"))
    assert tags.genres == ("gamelan",)
    assert tags.instruments == ()
    assert tags.tempo is None
    assert tags.moods
    assert tags.key


def test_negative_words_are_excluded_from_genres_and_instruments() -> None:
    tags = HeuristicTagger().tag(PLAUSIBLE["rock"], Tags(negative="rock, drums"))
    assert "rock" not in tags.genres
    assert tags.genres
    assert not any(
        "drum" in name for name in HeuristicTagger().tag(look(), Tags(genres="rock", negative="drum")).instruments
    )
    assert HeuristicTagger().tag(look(), Tags(negative=list(GENRES))).genres == ()


def test_genres_setting_limits_the_choice_and_rejects_unknown_names() -> None:
    for video in PLAUSIBLE.values():
        assert set(HeuristicTagger(["jazz", "lo-fi"]).tag(video, Tags()).genres) <= {"jazz", "lo-fi"}
    with pytest.raises(UsageError, match="polka"):
        HeuristicTagger(["polka"])
    with pytest.raises(UsageError):
        HeuristicTagger([])


def test_caption_describes_light_color_motion_and_cuts() -> None:
    def caption(video: Video) -> str:
        return HeuristicTagger().tag(video, Tags()).caption

    busy = look(brightness=0.6, saturation=0.6, warmth=0.5, motion=0.8, cuts=7)
    assert caption(busy) == "bright, colorful, warm, fast-moving picture with 7 cuts"
    still = look(brightness=0.1, saturation=0.05, warmth=-0.5, motion=0, cuts=0)
    assert caption(still) == "dark, gray, cool, still picture with no cuts"
    assert caption(look(cuts=1)).endswith("with one cut")


def test_measure_returns_plain_rounded_values() -> None:
    video = look(brightness=0.41234, warmth=-0.3, motion=0.2, cuts=6, hue=8)
    values = HeuristicTagger().measure(video)
    assert json.loads(json.dumps(values)) == values
    assert values["brightness"] == 0.412
    assert values["warmth"] == -0.3
    assert values["cuts_per_minute"] == 6
    assert values["hues"] == ["blue"]
    assert values["cuts"][0] == {"time": round(60 / 7, 3), "strength": 0.5}
    assert {"saturation", "contrast", "motion", "arousal", "valence"} < set(values)


def test_example_clip_is_tagged_major_with_yellow_and_azure_hues() -> None:
    video = opening.open(EXAMPLE)
    tags, values = HeuristicTagger().tag(video, Tags()), HeuristicTagger().measure(video)
    assert tags.key is not None
    assert tags.key.endswith("major")
    assert tags.genres[0] in {"orchestral", "acoustic folk"}
    assert set(values["hues"]) == {"yellow", "azure"}
    assert len(values["cuts"]) == 10
    assert "10 cuts" in tags.caption
