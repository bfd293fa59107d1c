"""Validation of the record types, and hints that override tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from v2m.core.types import Cut, Tags, Video, VisualFeatures, filter_unwanted


def picture(duration: float = 4.0, cuts: tuple[Cut, ...] = ()) -> VisualFeatures:
    times = np.arange(0, duration, 0.1)
    return VisualFeatures(10.0, times, times, times, times, times, times, np.zeros(12), 0.0, cuts)


class Still:
    """A frame source that knows one picture."""

    def __init__(self, measured: VisualFeatures) -> None:
        self.measured = measured
        self.asked: list[float] = []

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: object = None) -> np.ndarray:
        self.asked = list(times)
        return np.zeros((len(times), 2, 2, 3), np.uint8)

    def visual_features(self, progress: object = None) -> VisualFeatures:
        return self.measured


def video(duration: float = 4.0, cuts: tuple[Cut, ...] = ()) -> Video:
    stamps = np.arange(0, duration, 0.1)
    source = Still(picture(duration, cuts))
    return Video(Path("a.mp4"), "mp4", "h264", 16, 9, 0, 10.0, duration, stamps, 0.0, (), (), source)


@pytest.mark.parametrize("tempo", [0, 10000, 29.9, -90])
def test_tempo_out_of_range_is_refused_with_its_value(tempo: float) -> None:
    with pytest.raises(ValueError, match=f"tempo {tempo:g} is outside 30 to 300"):
        Tags(tempo=tempo)


def test_all_invalid_tags_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"tempo 0 .*; key 'H'"):
        Tags(tempo=0, key="H")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("C", (0, "major")), ("Am", (9, "minor")), ("F# minor", (6, "minor")), ("bb major", (10, "major")),
        ("E♭", (3, "major")), ("C-sharp minor", (1, "minor")), ("C blues", None), ("g min", (7, "minor")),
        ("B", (11, "major")), ("Cb", (11, "major")),
    ],
)  # fmt: skip
def test_keys_are_parsed_in_common_spellings(key: str, expected: tuple[int, str] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="is not a tonic and mode"):
            Tags(key=key)
    else:
        assert Tags(key=key).tonic_and_mode == expected


def test_words_are_a_list_or_comma_separated() -> None:
    assert Tags(genres="jazz, lo-fi,, jazz ").genres == Tags(genres=["jazz", "lo-fi"]).genres == ("jazz", "lo-fi")


def test_set_hints_override_and_unset_ones_do_not() -> None:
    found = Tags(caption="a dog", genres=["rock"], tempo=120, key="E")
    merged = found.overridden_by(Tags(genres=["jazz"], tempo=90))
    assert (merged.genres, merged.tempo, merged.key, merged.caption) == (("jazz",), 90, "E", "a dog")


def test_tags_are_complete_when_all_fields_are_set() -> None:
    full = Tags(genres="jazz", instruments="piano", moods="calm", tempo=90, key="C")
    assert full.is_complete
    assert not any(
        Tags(**{**full.to_dict(), name: None if name in {"tempo", "key"} else ()}).is_complete
        for name in ("genres", "instruments", "moods", "tempo", "key")
    )


def test_cropped_video_counts_from_its_own_start() -> None:
    whole = video(4.0, (Cut(1.0, 0.5), Cut(2.5, 1.0)))
    span = whole.crop(2.0, 3.0)
    assert span.duration == 1.0
    assert span.timestamps == pytest.approx(np.arange(0, 1.0, 0.1))
    assert [(cut.time, cut.strength) for cut in span.visual_features().cuts] == [(0.5, 1.0)]
    assert len(span.visual_features().times) == 10
    span.frames([0.25])
    assert isinstance(span.source, Still)
    assert span.source.asked == [2.25]
    assert span.crop(0.5).start == 2.5


def test_crop_between_two_frames_starts_with_the_earlier_one() -> None:
    span = video().crop(1.03, 1.07)
    assert span.timestamps.tolist() == [0.0]
    assert video().crop(1.03, 1.15).timestamps == pytest.approx([0.0, 0.07])


def test_too_short_crop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 3 to 3\.001 s is shorter than 0\.01 s"):
        video().crop(3.0, 3.001)


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (-1.0, None), (3.0, 2.0), (1.0, 1.0)])
def test_empty_crop_is_refused(start: float, end: float | None) -> None:
    with pytest.raises(ValueError, match=f"{start:g} s"):
        video().crop(start, end)


def test_crop_of_the_full_range_is_the_video_itself() -> None:
    whole = video()
    assert whole.crop(None, 99.0) is whole


@pytest.mark.parametrize(
    ("unwanted", "kept"),
    [
        ("guitar", ["trap", "brushed drums", "bass"]),
        ("Guitars", ["trap", "brushed drums", "bass"]),
        ("rap", ["electric guitars", "trap", "brushed drums", "bass"]),
        ("drum", ["electric guitars", "trap", "bass"]),
        ("drums", ["electric guitars", "trap", "bass"]),
        ("bass", ["electric guitars", "trap", "brushed drums"]),
        (" ", ["electric guitars", "trap", "brushed drums", "bass"]),
        ("(", ["electric guitars", "trap", "brushed drums", "bass"]),
    ],
)
def test_filter_unwanted_matches_whole_words_in_singular_and_plural(unwanted: str, kept: list[str]) -> None:
    assert filter_unwanted(["electric guitars", "trap", "brushed drums", "bass"], [unwanted]) == kept
