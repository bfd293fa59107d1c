"""Reading every file of the corpus: exactly, with a warning for damage, or refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.robustness.corpus import CASES
from tests.robustness.media_makers import OK, WARNED, ExpectedFrames, MediaCase, MediaMaker, read_number
from v2m.core.errors import InvalidInputError
from v2m.core.types import Video
from v2m.media import video

DAMAGE = {"truncated", "damaged", "no_keyframe_start", "one_frame", "short"}


def width_of(clip: Video) -> int:
    """Return a small width that still shows the numbers."""
    return 160 if min(clip.width, clip.height) > 120 else clip.width


def fingerprint(path: Path) -> str | None:
    """A digest of what must not change of a file: its bytes and times."""
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns)


def check_at_two_a_second(clip: Video, shown: ExpectedFrames) -> None:
    """Check that the frame at k / 2 s is the one shown then, within half a frame."""
    times = np.arange(int(2 * clip.duration) + 1) / 2
    times = times[times < clip.duration]
    starts, half = np.array(shown.times), 0.5 / clip.fps
    ends = np.append(starts[1:], np.inf)
    for time_, image in zip(times, clip.frames(times.tolist(), width_of(clip)), strict=True):
        fitting = (starts - half <= time_) & (time_ < ends + half)
        assert read_number(shown.undo(image)) in np.array(shown.numbers)[fitting], f"at {time_} s"


def check_in_sequence(clip: Video, shown: ExpectedFrames, whole: bool) -> None:
    """Check that every frame comes once, in order, at its time."""
    assert clip.source is not None
    chunks = list(clip.source.scan(width_of(clip), 1000))  # type: ignore[attr-defined]
    times = np.concatenate([times for times, _ in chunks])
    numbers = [read_number(shown.undo(image)) for _, images in chunks for image in images]
    assert len(times) == len(shown.numbers) if whole else len(times) > 0
    assert numbers == list(shown.numbers[: len(numbers)])
    half = 0.5 / clip.fps
    assert np.abs(times - shown.times[: len(times)]).max() <= half
    assert np.abs(clip.timestamps[: len(times)] - shown.times[: len(times)]).max() <= half


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.id)
def test_verdict_on_every_file_of_the_corpus(row: MediaCase, maker: MediaMaker) -> None:
    if row.verdict == "permission" and os.geteuid() == 0:
        pytest.skip("nothing is unreadable to root; see the test below")
    path = row.build(maker)
    before = fingerprint(path)
    if row.verdict not in {OK, WARNED}:
        with pytest.raises(InvalidInputError) as refused:
            video.open(path)
        assert refused.value.reason == row.verdict
        message = str(refused.value)
        assert "\n" not in message
        assert repr(str(path)) in message
        assert "status" not in message, "the decoder died of it"
        assert "was not done" not in message, "the decoder hung"
    else:
        clip = video.open(path)
        assert clip.source is not None
        if row.expected is not None:
            check_at_two_a_second(clip, row.expected)
            check_in_sequence(clip, row.expected, whole=row.verdict == OK or len(row.expected.numbers) < 100)
        else:
            assert sum(len(times) for times, _ in clip.source.scan(96, 30)) > 0  # type: ignore[attr-defined]
        words = {warning.partition(":")[0] for warning in video.current_warnings(clip)}
        assert words & DAMAGE if row.verdict == WARNED else not words, words
    assert fingerprint(path) == before


READ_ALL = """
import resource, sys
from pathlib import Path
from v2m.core.errors import InvalidInputError
from v2m.media import video

for name in sys.argv[1:]:
    try:
        for _ in video.open(Path(name)).source.scan(96, 30):
            pass
    except InvalidInputError:
        pass
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_no_decoder_uses_four_gigabytes(maker: MediaMaker) -> None:
    """Large frames and many: in a process of its own, for the largest child of this one may be another test's."""
    paths = [str(row.build(maker)) for row in CASES if row.id.strip("'").startswith(("b", "c15"))]
    assert len(paths) > 10
    done = subprocess.run([sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 4e9


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; others run the row itself")
def test_unreadable_file_is_refused_to_other_users() -> None:
    """Opened as nobody; a readable file beside it shows that the mode of the file decides."""
    code = (
        "import os, sys; from v2m.core.errors import InvalidInputError; from v2m.media import video; os.setuid(65534)\n"
        "open(sys.argv[1], 'rb').close()\n"
        "try: video.open(sys.argv[2])\n"
        "except InvalidInputError as error: print(error.reason)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        files = [Path(folder, name) for name in ("readable.mp4", "locked.mp4")]
        for file, mode in zip(files, (0o644, 0), strict=True):
            file.write_bytes(b"x")
            file.chmod(mode)
        done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout == "permission\n"
