"""What `score_video` asks of its parts besides tags and music, on a real clip."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.analysis.bars import bars
from tests.conftest import names
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.pipeline.result import Extras
from v2m.pipeline.score import score_video
from v2m.taggers.heuristic import Palette


class Diary:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class WatchedPalette(Palette):
    def __init__(self, diary: Diary, weights: tuple[WeightsInfo, ...] = ()) -> None:
        super().__init__()
        self.diary, self.weights = diary, weights

    def prepare(self) -> None:
        self.diary.lines.append("tagger prepared")

    def release(self) -> None:
        self.diary.lines.append("tagger released")

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        self.diary.lines.append("tagged")
        logging.getLogger("v2m.taggers.watched").warning("the picture is %s", "odd")
        return super().tag(video, hints, progress)


class WatchedSketch:
    """Sketch behind a contract of its own: it can do nothing but music."""

    def __init__(self, diary: Diary, missing: bool = False) -> None:
        self.diary, self.missing, self.sketch = diary, missing, Sketch()

    def prepare(self, tags: Tags, controls: Controls) -> None:
        if self.missing:
            raise DependencyError("no weights")
        self.diary.lines.append("generator prepared")

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
        self.diary.lines.append("written")
        return self.sketch.generate(video, tags, seed, stems=stems, progress=progress)


def test_weights_are_made_sure_of_first_and_the_tagger_is_gone_before_the_music(clip: Path) -> None:
    diary = Diary()
    score_video(clip, tagger=WatchedPalette(diary), generator=WatchedSketch(diary))
    assert diary.lines == ["generator prepared", "tagger prepared", "tagged", "tagger released", "written"]


def test_a_missing_model_stops_the_work_before_the_picture_is_looked_at(clip: Path) -> None:
    diary = Diary()
    with pytest.raises(DependencyError, match="no weights"):
        score_video(clip, tagger=WatchedPalette(diary), generator=WatchedSketch(diary, missing=True))
    assert diary.lines == []
    assert names(clip.parent) == ["cuts.mp4"]


def test_what_a_part_warns_of_is_in_the_sidecar_once(clip: Path) -> None:
    diary = Diary()
    record = score_video(clip, tagger=WatchedPalette(diary), generator=WatchedSketch(diary), candidates=2).to_dict()
    assert record["warnings"].count("the picture is odd") == 1
    assert logging.getLogger("v2m").handlers == []


@pytest.mark.parametrize(
    ("extras", "controls", "words"),
    [
        (Extras(stems=True), None, "cannot do `stems`"),
        (Extras(midi=True), None, "cannot do `midi`"),
        (None, Controls(reference=(Path("a.wav"),)), "cannot do `reference`"),
    ],
)
def test_what_a_generator_cannot_do_is_refused_before_any_work(
    clip: Path, extras: Extras | None, controls: Controls | None, words: str
) -> None:
    diary = Diary()
    generator = WatchedSketch(diary)
    with pytest.raises(UsageError, match=words):
        score_video(clip, tagger=WatchedPalette(diary), generator=generator, extras=extras, controls=controls)
    assert diary.lines == []


def test_singing_asked_of_a_player_is_a_warning(clip: Path) -> None:
    record = score_video(clip, tags=Tags(vocals=True)).to_dict()
    assert record["warnings"] == ["vocals were asked for: this generator plays instruments only"]


def test_the_sidecar_names_each_model_with_its_license_and_hashes(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"not really")
    weights = WeightsInfo("someone/model", folder, "0123abc", "apache-2.0")
    score_video(clip, tagger=WatchedPalette(Diary(), (weights,)))
    (named,) = json.loads(clip.with_name("cuts.v2m.json").read_text())["weights"]
    assert named["name"] == "someone/model"
    assert (named["revision"], named["license"]) == ("0123abc", "apache-2.0")
    assert named["sha256"] == {"model.safetensors": hashlib.sha256(b"not really").hexdigest()}


def test_takes_are_made_together_where_the_generator_can(clip: Path) -> None:
    class Together(WatchedSketch):
        def generate_batch(self, video: Video, tags: Tags, seeds: Sequence[int], **more: Any) -> list[Soundtrack]:
            self.diary.lines.append(f"together {list(seeds)}")
            return [self.sketch.generate(video, tags, seed) for seed in seeds]

    diary = Diary()
    record = score_video(clip, generator=Together(diary), candidates=2, seed=5).to_dict()
    assert diary.lines == ["generator prepared", "together [5, 6]"]
    assert {take["seed"] for take in record["candidates"]} == {5, 6}
    score_video(clip, generator=Together(diary), overwrite=True)
    assert diary.lines[2:] == ["generator prepared", "written"]


class Deaf:
    """Writes a steady piece that knows neither cuts nor its own beats; each seed begins elsewhere."""

    capabilities = frozenset({"stems"})

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
        beats = np.arange(0.05 + 0.07 * seed, video.duration - 0.1, 0.4)
        music = bars(beats, np.arange(len(beats)) % 4 == 0, video.duration)
        return Soundtrack(music, stems={"all": music} if stems else {})


def test_music_that_is_deaf_to_the_cuts_is_moved_onto_them_before_takes_are_ranked(clip: Path) -> None:
    extras = Extras(stems=True, markers="edl", report=True)
    record = score_video(
        clip, tags=Tags(tempo=150), generator=Deaf(), extras=extras, candidates=3, overwrite=True
    ).to_dict()  # fmt: skip
    told = record["music"]["align_to_cuts"]
    assert told["moved"]
    assert told["after"]["hits"] > told["before"]["hits"]
    assert 0 < told["max_stretch"] <= 0.04
    assert record["alignment"]["hits"] == told["after"]["hits"] == 1
    assert record["music"]["beats"]
    assert record["music"]["downbeats"]
    assert (clip.parent / "cuts.v2m.edl").read_text().count("|M:hit") == 2
    totals = [take["total"] for take in record["candidates"]]
    assert totals == sorted(totals, reverse=True)


def test_music_is_kept_unaligned_with_a_warning_when_librosa_is_missing(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    result = score_video(clip, generator=Deaf())
    assert not result.to_dict()["music"]["align_to_cuts"]["moved"]
    assert [warning for warning in result.metadata.warnings if "--extra eval" in warning]
    written = Deaf().generate(video.open(clip), Tags(), 0).audio
    np.testing.assert_array_equal(result.soundtrack.audio.samples, written.samples)


def test_one_flag_leaves_the_music_as_it_was_written(clip: Path) -> None:
    record = score_video(
        clip, tags=Tags(tempo=150), generator=Deaf(), extras=Extras(stems=True), align_to_cuts=False
    ).to_dict()
    assert "align_to_cuts" not in record["music"]
    assert record["alignment"] is None
    written = Deaf().generate(video.open(clip), Tags(), 0).audio
    left, _ = soundfile.read(clip.parent / "cuts.v2m.stems" / "all.wav", dtype="float32")
    assert (written.samples == left.T).all()


def test_sketch_knows_its_beats_and_is_never_moved(clip: Path) -> None:
    assert "align_to_cuts" not in score_video(clip).record["music"]
