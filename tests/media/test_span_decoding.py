"""Reading in spans: the same frames as in sequence, and a return to the sequence wherever a span is in doubt."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.robustness.media_makers import MediaMaker
from v2m.core.types import Pixels
from v2m.media import decoding, reading, span_decoding, video
from v2m.media.decoding import DecodeStats
from v2m.media.ffmpeg import open_media
from v2m.media.probe import probe
from v2m.media.span_decoding import MAX_SPAN_PACKETS, MIN_SPAN_PACKETS, is_balanced

SIZE = (64, 48)
CLIPS = {
    "references.mp4": "V X -g 40 -sc_threshold 0 -bf 3 -refs 4 O",
    "intra.mp4": "V X -g 1 O",
    "delayed.mkv": "V X -g 30 -bf 2 O",
}


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> MediaMaker:
    return MediaMaker(tmp_path_factory.mktemp("spans"))


@pytest.fixture(autouse=True)
def two_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_decoding, "NUM_DECODERS", 2)


@pytest.fixture
def sequences(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The time after which each reading in sequence goes on, in the order of the readings."""
    read, begun = reading._read_sequence, []

    def record(*args: Any, after: float | None = None) -> Iterator[reading.TimedImage]:
        begun.append(after)
        return read(*args, after=after)

    monkeypatch.setattr(reading, "_read_sequence", record)
    return begun


def read(path: Path, separable: bool) -> tuple[list[float], list[Pixels], DecodeStats]:
    """Return the times, the chunks and the counts of a reading of all frames."""
    stats = DecodeStats()
    chunks = list(
        reading.read_frames(
            str(path), stream=0, max_pixels=1 << 20, start=0.0, size=SIZE, orientation=(False, False, False),
            times=None, order=None, separable=separable, stats=stats,
        )
    )  # fmt: skip
    return [time for times, _ in chunks for time in times], [images for _, images in chunks], stats


def assert_same_reading(path: Path) -> None:
    times, chunks, stats = read(path, separable=True)
    true_times, true_chunks, true_stats = read(path, separable=False)
    assert times == true_times
    assert [len(chunk) for chunk in chunks] == [len(chunk) for chunk in true_chunks]
    assert all(map(np.array_equal, chunks, true_chunks))
    assert stats == true_stats


@pytest.mark.parametrize("name", CLIPS)
def test_spans_give_the_frames_of_the_sequence(
    maker: MediaMaker, sequences: list[float | None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same chunks, on which sums of the analysis depend in their last digits."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 7 * 3 * SIZE[0] * SIZE[1])
    path = maker.folder / name
    maker.ffmpeg(CLIPS[name], path)
    assert probe(str(path), asdict(video.DEFAULT_LIMITS))["timestamps"].shape == (120,)
    assert_same_reading(path)
    assert sequences == [None], "only the reading to compare with is in sequence"


def damage_packet(path: Path, number: int) -> None:
    """Overwrite the second half of a packet's bytes in the file."""
    with open_media(path) as media:
        packet = next(itertools.islice(media.demux(media.streams.video[0]), number, None))
    assert packet.pos is not None
    with path.open("r+b") as file:
        file.seek(packet.pos + packet.size // 2)
        file.write(np.random.default_rng(0).bytes(packet.size - packet.size // 2))


@pytest.mark.parametrize("number", [40, 55, 100])
def test_damage_is_read_in_sequence(
    maker: MediaMaker, sequences: list[float | None], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a key frame, which the decoder repairs from the frame before, and of others.

    Of damage, frame threads give what happens to be there.
    """
    monkeypatch.setattr(decoding, "NUM_THREADS", 1)
    path = maker.folder / f"damaged{number}.mp4"
    maker.ffmpeg("V X -g 40 -sc_threshold 0 -bf 0 O", path)
    damage_packet(path, number)
    assert_same_reading(path)
    assert sequences[0] is not None
    assert sequences[0] < number / 30


def test_open_group_is_no_start_of_a_span(maker: MediaMaker, sequences: list[float | None]) -> None:
    """Its key frame is no IDR picture, and the frames shown before it refer to the group before."""
    path = maker.folder / "open.mkv"
    maker.ffmpeg("V X -g 40 -sc_threshold 0 -bf 3 -x264-params open-gop=1 O", path)
    assert not probe(str(path), asdict(video.DEFAULT_LIMITS))["separable"]
    assert_same_reading(path)


@pytest.mark.parametrize("recipe", ["V X -g 30 -pix_fmt yuv444p O", "V -c:v libx265 -g 30 O", "V -c:v mpeg4 -g 30 O"])
def test_other_streams_are_read_in_sequence(maker: MediaMaker, sequences: list[float | None], recipe: str) -> None:
    path = maker.folder / f"other{len(recipe)}.mkv"
    maker.ffmpeg(recipe, path)
    assert_same_reading(path)
    assert len(sequences) == 2


def test_new_parameter_sets_are_read_in_sequence(maker: MediaMaker, sequences: list[float | None]) -> None:
    """Two recordings in one stream, of which the header holds only the first one's sets."""
    first, second, joined, path = (maker.folder / name for name in ("1.h264", "2.h264", "joined.h264", "joined.mp4"))
    maker.ffmpeg("V X -g 30 -bf 0 O", first)
    maker.ffmpeg("V X -g 30 -bf 0 -qp 40 -coder 1 O", second)
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    maker.ffmpeg(f"-framerate 30 -i {joined} -c copy O", path)
    assert_same_reading(path)
    assert len(sequences) == 2


def test_leaving_early_ends_the_threads(maker: MediaMaker) -> None:
    path = maker.folder / "left.mp4"
    maker.ffmpeg("V X -g 30 O", path)
    before = set(threading.enumerate())
    frames = span_decoding.decode_spans(
        lambda: open_media(path, max_pixels=1 << 20), 0, lambda: lambda frame: frame.pts
    )
    assert next(frames)[0] == 0.0
    frames.close()
    assert set(threading.enumerate()) <= before


def test_balance_of_spans() -> None:
    """Spans that leave a decoder idle, or that do not fit into memory, are no gain."""
    even = list(range(0, 1000, 100))
    assert is_balanced(even, 1000, 2)
    assert not is_balanced(even, 1000, 1)
    assert not is_balanced([0], 500, 2)
    assert not is_balanced([0, 900], 1000, 2)
    assert not is_balanced([], 0, 2)
    assert not is_balanced(range(0, 10 * MAX_SPAN_PACKETS, MAX_SPAN_PACKETS + 1), 10 * MAX_SPAN_PACKETS, 2)
    assert is_balanced(range(8 * MIN_SPAN_PACKETS), 8 * MIN_SPAN_PACKETS, 4), "single key frames are joined"
