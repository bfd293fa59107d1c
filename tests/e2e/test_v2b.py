"""The recipe v2b from the command line, on tiny checkpoints and a real clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from tests.conftest import names
from tests.fixtures.packets import packet_digest
from tests.fixtures.tiny import v2b
from tests.fixtures.tiny.videollama import SONG
from v2m.cli.score import main


@pytest.fixture(scope="module")
def weights(v2b_weights: Path) -> Path:
    return v2b_weights


def score(clip: Path, weights: Path, *flags: str) -> dict[str, Any]:
    assert main([str(clip), *v2b.flags(weights), "--quiet", *flags]) == 0
    return json.loads(clip.with_name("cuts.v2m.json").read_text())


@pytest.fixture(scope="module")
def instrumental(media: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    clip = Path(shutil.copy(media / "cuts.mp4", tmp_path_factory.mktemp("scored")))
    return clip, score(clip, weights, "--stems", "--generator.max_section", "2", "--seed", "4")


def test_video_packets_are_identical_and_audio_has_the_video_length(instrumental: tuple[Path, dict[str, Any]]) -> None:
    clip, record = instrumental
    out = clip.with_name("cuts.v2m.mp4")
    assert packet_digest(out) == packet_digest(clip)
    with av.open(str(out)) as container:
        stream = container.streams.audio[0]
        seconds = sum(frame.samples for frame in container.decode(stream)) / stream.rate
    assert seconds == pytest.approx(record["input"]["seconds"], abs=0.025)
    stem, rate = soundfile.read(clip.parent / "cuts.v2m.stems" / "instrumental.wav")
    assert len(stem) == round(record["input"]["seconds"] * rate)
    assert np.sqrt((stem**2).mean()) > 1e-4


def test_sidecar_records_caption_prompt_and_weights(instrumental: tuple[Path, dict[str, Any]], weights: Path) -> None:
    _, record = instrumental
    assert record["recipe"] == "v2b"
    assert record["tags"]["caption"] == "A kite flies over a hill."
    assert record["tags"]["genres"] == ["ambient", "cinematic"]
    assert record["tags"]["tempo"] == 72
    music = record["music"]
    assert music["genre_line"] == "instrumental ambient cinematic piano harp calm hopeful slow warm airy"
    assert music["stems"] == ["instrumental"]
    starts, ends = [[section[k] for section in music["sections"]] for k in (1, 2)]
    assert (starts[0], ends[-1], starts[1:]) == (0, 4, ends[:-1])
    assert max(np.subtract(ends, starts)) <= 2.0 * 1.04 + 0.5  # as asked for, and then moved onto the cuts
    assert [each["name"] for each in record["weights"]] == [
        str(weights / part) for part in ("tagger", "stage1", "stage2", "codec")
    ]
    assert all(len(digest) == 64 for each in record["weights"] for digest in each["sha256"].values())
    assert all(each["sha256"] for each in record["weights"])
    assert record["warnings"] == []


def test_lyrics_file_is_sung(clip: Path, weights: Path) -> None:
    words = clip.with_name("song.txt")
    words.write_text("[verse]\nhappy sun\n")
    record = score(clip, weights, "--lyrics", str(words), "--stems", "--end", "1.0")
    assert record["music"]["lyrics"] == ["happy sun"]
    assert sorted(record["music"]["stems"]) == ["instrumental", "vocals"]
    assert names(clip.parent / "cuts.v2m.stems") == ["instrumental.wav", "vocals.wav"]


def test_missing_lyrics_are_written_by_the_tagger_even_with_complete_tags(clip: Path, weights: Path) -> None:
    given = {
        "genres": "pop",
        "instruments": "piano",
        "moods": "calm",
        "tempo": "90",
        "key": "C major",
        "vocals": "true",
    }
    flags = [word for name, value in given.items() for word in (f"--tags.{name}", value)]
    record = score(clip, weights, *flags, "--end", "1.0", "--stems", "--generator.max_section", "1")
    assert record["tags"]["lyrics"] == SONG
    assert record["music"]["lyrics"] == ["Over the hill we fly\nUnder the open sky"]
    assert sorted(record["music"]["stems"]) == ["instrumental", "vocals"]
    assert record["tags"]["genres"] == ["pop"]
    assert len(record["warnings"]) == 1
    assert "room for 1 of the lyrics' 2 sections" in record["warnings"][0]


def test_tagger_without_lyrics_falls_back_to_instrumental_with_a_warning(clip: Path, weights: Path) -> None:
    record = score(clip, weights, "--tags.vocals", "true", "--tagger.max_new_tokens", "3", "--end", "0.5", "--stems")
    assert record["music"]["stems"] == ["instrumental"]
    assert [text for text in record["warnings"] if "wrote no lyrics that can be sung" in text]
    assert [text for text in record["warnings"] if "there are no lyrics: the music is instrumental" in text]


def test_audio_of_the_clip_serves_as_reference(clip: Path, weights: Path) -> None:
    record = score(clip, weights, "--reference", str(clip), "--end", "0.5")
    assert record["music"]["reference"] == [str(clip)]
    assert len(record["settings"]["reference_sha256"][0]) == 64


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--midi"], (2, "cannot do --midi; it can do --reference, --stems")),
        (["--tags.vocals", "true", "--tags.lyrics", "[yodel] la"], (2, "line 1 has [yodel]")),
        (["--generator.max_section", "40"], (2, "max_section 40 s must lie between 1 and 30")),
        (["--generator.stage2", "no/such/folder/at/all"], (2, "there is no folder 'no/such/folder/at/all'")),
        (["--generator.bits", "3"], (2, "bits")),
        (["--generator.device", "tpu"], (2, "device 'tpu' is none of this machine's")),
        (["--tagger.prompt", ""], (2, "prompt must not be empty")),
        (["--reference", "README.md"], (2, "cannot be read as sound")),
    ],
)
def test_unsupported_options_are_one_line_before_any_work(
    clip: Path, weights: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: tuple[int, str]
) -> None:
    code = main([str(clip), *v2b.flags(weights), *flags])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == said[0]
    assert said[1] in line
    assert names(clip.parent) == ["cuts.mp4"]


def test_tagger_without_prompts_is_refused_by_name(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(clip), "--tagger", "v2m.taggers.videollama.VideoLLaMA3", "--tagger.prompt", "What?"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "required: lyrics_prompt" in line
