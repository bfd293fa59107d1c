"""Makers of the corpus: with ffmpeg, from numbered frames, and by editing bytes.

Most pictures carry their own number, so that what a reader returns can be told from what it should have returned:
16 blocks, white for 1, lowest bit first, in two rows of eight over the upper half. The lower half scrolls.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

OK, WARNED = "ok", "warned"
X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
X265 = "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params log-level=error"
RECIPE_WORDS = {  # what stands for what in a recipe; `numbers:WxH:rate:count` is an input as well, and O the output
    "V": "numbers:320x240:30:120",
    "A": "-f lavfi -i sine=440:d=4:sample_rate=44100",
    "X": X264,
    "B": "-i BASE -c copy",
}


def draw_number(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """The luma (height, width) of frame `number`."""
    texture = np.random.default_rng(0).integers(60, 120, (height, width), np.uint8)
    luma = np.roll(texture, 3 * number, axis=1)
    for bit in range(16):
        row, column = divmod(bit, 8)
        block = np.s_[
            row * (height // 4) : (row + 1) * (height // 4), column * (width // 8) : (column + 1) * (width // 8)
        ]
        luma[block] = 235 if number >> bit & 1 else 16
    return luma


def read_number(image: NDArray[np.uint8]) -> int:
    """The number that a frame (H, W, 3) carries, from the middle of each block."""
    height, width = image.shape[0] / 4, image.shape[1] / 8
    middle = [
        image[int((row + 0.5) * height), int((column + 0.5) * width)].mean() for row in range(2) for column in range(8)
    ]
    return sum(1 << bit for bit, level in enumerate(middle) if level > 128)


@dataclass(frozen=True)
class ExpectedFrames:
    """The frames that a file shows: their numbers, start times (seconds), and the inverse of their orientation."""

    numbers: Sequence[int]
    times: Sequence[float]
    undo: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = field(default=lambda image: image)


def constant_rate(numbers: Sequence[int], rate: float, **turn: Callable) -> ExpectedFrames:
    return ExpectedFrames(numbers, [n / rate for n in range(len(numbers))], **turn)


class MediaMaker:
    """A maker of files in `folder`, of their numbered inputs and of the base file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        (folder / "titles.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nHello\n")
        (folder / "chapters.txt").write_text(
            ";FFMETADATA1\ntitle=T\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=2000\ntitle=One\n"
        )

    def ffmpeg(self, recipe: str, out: Path) -> None:
        """Run `recipe`, in which the names of RECIPE_WORDS stand for their arguments and O for `out`."""
        words = " ".join(RECIPE_WORDS.get(word, word) for word in recipe.split()).split()
        arguments: list[str] = []
        for word in words:
            if word.startswith("numbers:"):
                arguments += ["-i", str(self.numbers(word))]
            else:
                named = {"O": f"file:{out}", "BASE": str(self.folder / "base.mp4"), "LONG": "comment=" + "x" * 100_000}
                arguments.append(named.get(word, word))
        if "BASE" in words:
            self.base()
        command = [self._ffmpeg, "-y", "-v", "error", "-nostdin", *arguments]
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True)

    def base(self) -> bytearray:
        """Four seconds of H.264 and AAC in two groups of pictures, with the index at the end."""
        path = self.folder / "base.mp4"
        if not path.exists():
            self.ffmpeg("V A X -g 60 -c:a aac O", path)
        return bytearray(path.read_bytes())

    def numbers(self, word: str) -> Path:
        """A raw video for `numbers:WxH:rate:count`."""
        _, size, rate, count = word.split(":")
        path = self.folder / f"{size}_{rate.replace('/', '_')}_{count}.y4m"
        if not path.exists():
            width, height = map(int, size.split("x"))
            fraction = Fraction(rate)
            gray = bytes([128]) * (2 * ((width + 1) // 2) * ((height + 1) // 2))
            with path.open("wb") as file:
                file.write(b"YUV4MPEG2 W%d H%d F%d:%d Ip C420jpeg\n" % (width, height, *fraction.as_integer_ratio()))
                for number in range(int(count)):
                    file.write(b"FRAME\n" + draw_number(number, width, height).tobytes() + gray)
        return path


MakeFile = Callable[[MediaMaker, Path], object]


@dataclass(frozen=True)
class MediaCase:
    """A file with its `verdict`: OK, WARNED or the reason of refusal; `expected` is None for unnumbered frames."""

    name: str | bytes
    verdict: str
    make: MakeFile
    expected: ExpectedFrames | None = None

    @property
    def id(self) -> str:
        return ascii(self.name)[:40]

    def build(self, maker: MediaMaker) -> Path:
        """Return the file, made if it does not exist."""
        path = maker.folder / os.fsdecode(self.name)
        if not os.path.lexists(path):
            self.make(maker, path)
        return path


def encode_case(name: str, verdict: str, recipe: str, shown: ExpectedFrames | None = None) -> MediaCase:
    """A case made by ffmpeg; it shows all of its first numbered input unless `expected` is given."""
    words = " ".join(RECIPE_WORDS.get(word, word) for word in recipe.split()).split()
    inputs = [word for word in words if word.startswith("numbers:")] or [RECIPE_WORDS["V"]] * ("BASE" in words)
    if shown is None and inputs:
        _, _, rate, count = inputs[0].split(":")
        shown = constant_rate(range(int(count)), float(Fraction(rate)))
    return MediaCase(name, verdict, lambda maker, out: maker.ffmpeg(recipe, out), shown)


def repeat_case(name: str, verdict: str, recipe: str, count: int) -> MediaCase:
    """A case that holds `count` times what ffmpeg makes: to encode so many frames takes long."""

    def make(maker: MediaMaker, out: Path) -> None:
        once = out.with_stem(f"{out.stem}_once")
        maker.ffmpeg(recipe, once)
        maker.ffmpeg(f"-stream_loop {count - 1} -i {once.name} -c copy O", out)
        once.unlink()

    return MediaCase(name, verdict, make)


def edit_case(
    name: str, verdict: str, edit: Callable[[bytearray], bytes | bytearray], shown: ExpectedFrames | None = None
) -> MediaCase:
    """A case made by changing the bytes of the base file."""
    return MediaCase(name, verdict, lambda maker, out: out.write_bytes(edit(maker.base())), shown)


def content_case(name: str, verdict: str, content: bytes) -> MediaCase:
    return MediaCase(name, verdict, lambda _, out: out.write_bytes(content))


def transcode_then(recipe: str, suffix: str, change: Callable[[bytes], bytes | bytearray]) -> MakeFile:
    """Run `recipe` into a file with `suffix`, then change its bytes."""

    def make(maker: MediaMaker, out: Path) -> None:
        whole = out.with_name(out.name + suffix)
        maker.ffmpeg(recipe, whole)
        out.write_bytes(change(whole.read_bytes()))
        whole.unlink()

    return make
