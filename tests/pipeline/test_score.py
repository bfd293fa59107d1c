"""`score_video` on a real clip: order of calls, capabilities, candidates and alignment."""

from __future__ import annotations

import hashlib
import json
import logging
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
from v2m.pipeline.time_warp import MAX_STRETCH
from v2m.taggers.heuristic import HeuristicTagger


class CallLog:
    """The calls of all stubs, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class RecordingTagger(HeuristicTagger):
    def __init__(self, log: CallLog, weights: tuple[WeightsInfo, ...] = ()) -> None:
        super().__init__()
        self.log, self.weights = log, weights

    def prepare(self) -> None:
        self.log.lines.append("tagger prepared")

    def release(self) -> None:
        self.log.lines.append("tagger released")

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        self.log.lines.append("tagged")
        logging.getLogger("v2m.taggers.recording").warning("the picture is %s", "odd")
        return super().tag(video, hints, progress)


class RecordingSketch:
    """Sketch without capabilities besides music."""

    def __init__(self, log: CallLog, missing: bool = False) -> None:
        self.log, self.missing, self.sketch = log, missing, Sketch()

    def prepare(self, tags: Tags, controls: Controls) -> None:
        if self.missing:
            raise DependencyError("no weights")
        self.log.lines.append("generator prepared")

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
        self.log.lines.append("generated")
        return self.sketch.generate(video, tags, seed, stems=stems, progress=progress)


def test_models_are_prepared_first_and_the_tagger_is_released_before_generation(clip: Path) -> None:
    log = CallLog()
    score_video(clip, tagger=RecordingTagger(log), generator=RecordingSketch(log))
    assert log.lines == ["generator prepared", "tagger prepared", "tagged", "tagger released", "generated"]


def test_missing_weights_are_reported_before_analysis(clip: Path) -> None:
    log = CallLog()
    with pytest.raises(DependencyError, match="no weights"):
        score_video(clip, tagger=RecordingTagger(log), generator=RecordingSketch(log, missing=True))
    assert log.lines == []
    assert names(clip.parent) == ["cuts.mp4"]


def test_warning_of_a_component_is_in_the_sidecar_once(clip: Path) -> None:
    log = CallLog()
    record = score_video(clip, tagger=RecordingTagger(log), generator=RecordingSketch(log), candidates=2).to_dict()
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
def test_unsupported_capability_is_refused_before_any_work(
    clip: Path, extras: Extras | None, controls: Controls | None, words: str
) -> None:
    log = CallLog()
    generator = RecordingSketch(log)
    with pytest.raises(UsageError, match=words):
        score_video(clip, tagger=RecordingTagger(log), generator=generator, extras=extras, controls=controls)
    assert log.lines == []


def test_vocals_with_an_instrumental_generator_give_a_warning(clip: Path) -> None:
    record = score_video(clip, tags=Tags(vocals=True)).to_dict()
    assert record["warnings"] == ["vocals were asked for: this generator plays instruments only"]


def test_sidecar_names_each_model_with_its_license_and_hashes(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"not really")
    weights = WeightsInfo("someone/model", folder, "0123abc", "apache-2.0")
    score_video(clip, tagger=RecordingTagger(CallLog(), (weights,)))
    (named,) = json.loads(clip.with_name("cuts.v2m.json").read_text())["weights"]
    assert named["name"] == "someone/model"
    assert (named["revision"], named["license"]) == ("0123abc", "apache-2.0")
    assert named["sha256"] == {"model.safetensors": hashlib.sha256(b"not really").hexdigest()}


def test_candidates_are_generated_in_a_batch_if_supported(clip: Path) -> None:
    class BatchGenerator(RecordingSketch):
        def generate_batch(self, video: Video, tags: Tags, seeds: Sequence[int], **more: Any) -> list[Soundtrack]:
            self.log.lines.append(f"batch {list(seeds)}")
            return [self.sketch.generate(video, tags, seed) for seed in seeds]

    log = CallLog()
    record = score_video(clip, generator=BatchGenerator(log), candidates=2, seed=5).to_dict()
    assert log.lines == ["generator prepared", "batch [5, 6]"]
    assert {take["seed"] for take in record["candidates"]} == {5, 6}
    score_video(clip, generator=BatchGenerator(log), overwrite=True)
    assert log.lines[2:] == ["generator prepared", "generated"]


class UnalignedGenerator:
    """Generate a steady piece without beats in the result; its phase depends on the seed."""

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


def test_music_without_known_beats_is_aligned_before_candidates_are_ranked(clip: Path) -> None:
    extras = Extras(stems=True, markers="edl", report=True)
    record = score_video(
        clip, tags=Tags(tempo=150), generator=UnalignedGenerator(), extras=extras, candidates=3, overwrite=True
    ).to_dict()  # fmt: skip
    status = record["music"]["align_to_cuts"]
    assert status["moved"]
    assert status["after"]["hits"] > status["before"]["hits"]
    assert 0 < status["max_stretch"] <= MAX_STRETCH
    assert record["alignment"]["hits"] == status["after"]["hits"]
    assert record["music"]["beats"]
    assert record["music"]["downbeats"]
    hits = round(status["after"]["hits"] * status["after"]["n"])
    assert (clip.parent / "cuts.v2m.edl").read_text().count("|M:hit") == hits
    totals = [take["total"] for take in record["candidates"]]
    assert totals == sorted(totals, reverse=True)


def test_align_to_cuts_false_keeps_the_generated_music(clip: Path) -> None:
    record = score_video(
        clip, tags=Tags(tempo=150), generator=UnalignedGenerator(), extras=Extras(stems=True), align_to_cuts=False
    ).to_dict()
    assert "align_to_cuts" not in record["music"]
    assert record["alignment"] is None
    written = UnalignedGenerator().generate(video.open(clip), Tags(), 0).audio
    left, _ = soundfile.read(clip.parent / "cuts.v2m.stems" / "all.wav", dtype="float32")
    assert (written.samples == left.T).all()


def test_sketch_is_never_warped(clip: Path) -> None:
    assert "align_to_cuts" not in score_video(clip).record["music"]
