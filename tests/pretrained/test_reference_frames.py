"""Frames of VidMuse and VideoLLaMA3 against what their authors' loaders take from the same files.

VidMuse reads frame numbers with decord and squashes them with torchvision; VideoLLaMA3 reads FFmpeg's `fps` filter and
resizes with PIL.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import decord
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Resize
from transformers import CLIPImageProcessorPil
from transformers.image_transforms import resize

from tests.conftest import FFMPEG, ffmpeg
from tests.fixtures.tiny import clip as tiny
from v2m.core.timing import sample_frames
from v2m.core.types import Pixels, Video
from v2m.media import video
from v2m.pretrained.frame_times import long_term_frame_times, window_frame_times
from v2m.pretrained.vision import FrozenVisionEncoder
from v2m.taggers.videollama import VideoLLaMA3, input_size, resize_frames

CPU = torch.device("cpu")
SQUASH = Resize((tiny.IMAGE_SIZE, tiny.IMAGE_SIZE))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FrozenVisionEncoder:
    folder = tiny.write(tmp_path_factory.mktemp("clip"), "clip")
    return FrozenVisionEncoder.load(folder, CPU, name="clip", pooling="all", aspect="vidmuse")


def make_clip(folder: Path, rate: str = "25", seconds: float = 4.5, size: str = "320x180") -> Video:
    """A moving test pattern with grain, whose frames all differ."""
    path = folder / "clip.mp4"
    graph = f"testsrc2=size={size}:rate={rate}:duration={seconds},noise=alls=30:allf=t:all_seed=1"
    ffmpeg("-f", "lavfi", "-i", graph, "-c:v", "libx264", "-crf", "18", "-g", "12", "-pix_fmt", "yuv420p", path)
    return video.open(path)


def squashed(frames: Pixels) -> Pixels:
    """As torchvision makes them, of the tiny encoder's size in place of 224 × 224."""
    return SQUASH(torch.from_numpy(frames).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def max_levels(ours: Pixels, theirs: Pixels) -> int:
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


@pytest.mark.parametrize("size", [(720, 1280), (90, 50), (32, 32), (7, 300)])
def test_squash_equals_torchvision_and_encoding_equals_the_published_processor(
    encoder: FrozenVisionEncoder, size: tuple[int, int]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    assert encoder.convert is not None
    ours = encoder.convert(frames)
    assert max_levels(ours, squashed(frames)) <= 1
    processor = CLIPImageProcessorPil(size={"shortest_edge": tiny.IMAGE_SIZE}, crop_size=tiny.IMAGE_SIZE)
    pixels = processor(torch.from_numpy(ours).permute(0, 3, 1, 2).float(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = tiny.make_model("clip").vision_model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(encoder.encode(ours), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(encoder.encode(frames), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_vidmuse_frames_equal_its_loader(encoder: FrozenVisionEncoder, tmp_path: Path, decoder: video.Decoder) -> None:
    """At 25 frames a second its step is 13 frames: 0.52 s. The last one found stands for what lies beyond."""
    clip = video.open(make_clip(tmp_path).path, decoder=decoder)
    width = encoder.decode_width(clip.width, clip.height)
    reader = decord.VideoReader(str(clip.path))
    for times, numbers in (
        (window_frame_times(clip, "vidmuse", 0.0, 3.0, 2.0), [0, 13, 26, 39, 52, 65]),
        (window_frame_times(clip, "vidmuse", 3.5, 1.0, 2.0), [87, 100]),
        (window_frame_times(clip, "vidmuse", 3.5, 3.0, 2.0), [87, 100, 100, 100, 100, 100]),
        (long_term_frame_times(clip, "vidmuse", 5), torch.linspace(0, len(reader) - 1, 5).long().tolist()),
    ):
        theirs = squashed(reader.get_batch(numbers).asnumpy())
        assert max_levels(clip.frames(times.tolist(), width, encoder.convert), theirs) <= 1


def test_other_aspects_keep_evenly_spaced_times(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, seconds=4.0)
    assert window_frame_times(clip, "squash", 1.0, 2.0, 2.0).tolist() == [1.25, 1.75, 2.25, 2.75]
    assert long_term_frame_times(clip, "squash", 2).tolist() == [1.0, 3.0]


def published_videollama_frames(clip: Video, fps: float, limit: int) -> tuple[Pixels, list[float]]:
    """Frames at full size, and their times, by FFmpeg itself."""
    command = [FFMPEG, "-v", "error", "-i", clip.path, "-filter_complex", f"fps=fps={fps}:round=down"]
    pipe = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"], capture_output=True, check=True)
    frames = np.frombuffer(pipe.stdout, np.uint8).reshape(-1, clip.height, clip.width, 3)
    times = np.arange(0.0, clip.duration + 1 / fps, 1 / fps)[: len(frames)]
    indices = np.linspace(0, len(frames) - 1, limit, dtype=int) if len(frames) > limit else np.arange(len(frames))
    return frames[indices], times[indices].tolist()


@pytest.mark.parametrize(
    ("rate", "seconds", "fps", "limit"),
    [("25", 4.5, 1.0, 8), ("25", 3.96, 1.0, 8), ("30000/1001", 3.0, 2.0, 9), ("15", 6.2, 1.0, 4), ("2", 3.5, 2.0, 9)],
)
def test_videollama_frames_equal_its_loader(tmp_path: Path, rate: str, seconds: float, fps: float, limit: int) -> None:
    clip = make_clip(tmp_path, rate, seconds)
    theirs, times = published_videollama_frames(clip, fps, limit)
    tagger = VideoLLaMA3(prompt="?", lyrics_prompt="?", fps=fps, max_frames=limit, pixels=20_000)
    frames, told = tagger._read_frames(clip)
    assert told == pytest.approx(times)
    width, height = input_size(clip.width, clip.height, 20_000)
    bicubic = partial(resize, size=(height, width), resample=Image.Resampling.BICUBIC)
    expected = np.stack([bicubic(frame, input_data_format="channels_last") for frame in theirs])
    assert max_levels(frames, expected) <= 1


def test_fast_videollama_frames_show_the_same_instants(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, "10", 3.0, "640x360")
    exact, fast = (
        VideoLLaMA3(prompt="?", lyrics_prompt="?", pixels=20_000, fast_frames=fast) for fast in (False, True)
    )
    frames, told = exact._read_frames(clip)
    small, same = fast._read_frames(clip)
    assert told == same
    resized = resize_frames(small, (frames.shape[2], frames.shape[1]))
    assert np.abs(resized.astype(int) - frames.astype(int)).mean() < 8


@pytest.mark.parametrize("size", [(1920, 1080), (320, 180), (64, 48), (1080, 1920), (30, 600)])
@pytest.mark.parametrize("max_pixels", [784, 50_176, 100_352])
def test_input_size_is_that_of_the_model_s_processor(size: tuple[int, int], max_pixels: int) -> None:
    from transformers.models.video_llama_3.image_processing_video_llama_3 import smart_resize

    width, height = size
    expected = smart_resize(height, width, 28, min(16 * 784, max_pixels), max_pixels)
    assert input_size(width, height, max_pixels) == expected[::-1]
    if max_pixels > 784:  # of one token's size the processor makes narrow frames smaller once more
        assert smart_resize(*expected, 28, min(16 * 784, max_pixels), max_pixels) == expected


@pytest.mark.parametrize(
    ("duration", "rate", "limit", "shown", "told"),
    [
        (4.0, 1.0, 32, [0.9, 1.9, 2.9, 3.9], [0.0, 1.0, 2.0, 3.0]),
        (0.4, 1.0, 32, [0.3], [0.0]),
        (9.0, 1.0, 3, [0.9, 4.9, 8.9], [0.0, 4.0, 8.0]),
        (9.0, 1.0, 1, [0.9], [0.0]),
    ],
)
def test_last_frame_of_each_second_is_told_as_its_start(
    duration: float, rate: float, limit: int, shown: list[float], told: list[float]
) -> None:
    timestamps = np.arange(round(duration * 10)) / 10
    times, labels = sample_frames(timestamps, duration, rate, limit)
    assert times.tolist() == pytest.approx(shown)
    assert labels.tolist() == told


def test_decoded_frames_are_converted_a_few_at_a_time(tmp_path: Path) -> None:
    """So that a long video of large frames does not fill the memory."""
    clip, sizes = make_clip(tmp_path, "10", 2.0, "640x480"), list[int]()

    def note(frames: Pixels, size: tuple[int, int]) -> Pixels:
        sizes.append(len(frames))
        return resize_frames(frames, size)

    times = [1.5, 0.2, 0.2, 1.9]
    frames = clip.frames(times, convert=partial(note, size=(28, 28)))
    np.testing.assert_array_equal(frames, resize_frames(clip.frames(times), (28, 28)))
    assert max(sizes) == 1
