"""Clips and pieces of `bench.learned`: videos with true cuts, and the music of a model for them.

Pieces are kept in a folder by a hash of the model, its options and the code, so that a run that ended goes on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bench.sketch_pieces import code_hash
from v2m.checkpoints import V2M
from v2m.checkpoints.components import SAFETENSORS_GLOB
from v2m.checkpoints.lightning_ckpt import load_training_checkpoint
from v2m.core.atomic import atomic_write
from v2m.core.timing import beat_seconds
from v2m.core.types import Audio, SamplingConfig, Soundtrack, Tags, Video
from v2m.data import synthetic
from v2m.generators.musicgen_engine import MusicGenEngine
from v2m.generators.options import WindowOptions
from v2m.generators.vidmuse import VidMuse
from v2m.generators.vidmuse_engine import VideoMusicEngine, VisualFrontend
from v2m.media import ffmpeg, video
from v2m.media.audio import resample
from v2m.models.inference.fast_linear import Precision
from v2m.models.visual_conditioner import VisualInputs
from v2m.pipeline.recipes import list_recipes, load_recipe
from v2m.pretrained.codecs.score import ScoreCodec
from v2m.sketch.notation.midi_file import read_midi
from v2m.taggers.heuristic import HeuristicTagger

RATE = 16000  # of the kept sound, mono
MIN_CUTS = 2
RECIPE = "learned"
CODE = ("analysis", "data/synthetic.py", "generators", "models", "pretrained", "sketch", "taggers")
ENCODE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Clip:
    """A video with its true cuts in seconds; `kind` is "on beats", "off beats" or "real"."""

    name: str
    kind: str
    video: Video
    tags: Tags
    cuts: tuple[float, ...]
    light: float  # 0–1; of a real clip its mean brightness

    @property
    def duration(self) -> float:
        return self.video.duration


@dataclass(frozen=True)
class Piece:
    """Music for a clip: codes (K, T), its sound, and the wall and processor seconds that both took."""

    codes: NDArray[np.int64]
    sound: Audio
    seconds: float
    processor_seconds: float


class Writer(Protocol):
    """A writer of scores. `key` is a hash of all that its music depends on but video, tags and seed."""

    key: str
    num_parameters: int
    weights_mb: float

    @property
    def codec(self) -> ScoreCodec: ...

    def write(self, clip: Video, tags: Tags, seed: int) -> tuple[NDArray[np.int64], Soundtrack]:
        """Return the codes and the music that plays them."""
        ...


def synthetic_clips(folder: Path, count: int, seconds: float, seed: int) -> list[Clip]:
    """Return synthetic clips with two cuts or more: on beats of the tags' tempo, or at other times.

    They are those of `v2m synthesize --seed SEED`, half of them of either kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    room = {"on beats": count - count // 2, "off beats": count // 2}
    for number in itertools.count():
        if not any(room.values()):
            break
        scene = synthetic.sample_scene(seed * 1_000_003 + number, seconds)
        kind = "on beats" if has_cuts_on_beats(scene) else "off beats"
        if len(scene.cuts) < MIN_CUTS or not room[kind]:
            continue
        room[kind] -= 1
        path = folder / f"{number:04d}-{kind.replace(' ', '-')}.mp4"
        if not path.is_file():
            _encode(scene, seconds, path)
        clip = video.open(path)
        clips.append(Clip(path.stem, kind, clip, synthetic.scene_tags(scene, clip), scene.cuts, scene.light))
    return clips


def has_cuts_on_beats(scene: synthetic.Scene) -> bool:
    """Return whether all cuts lie within a frame of a beat."""
    beat = beat_seconds(scene.tempo)
    offsets = np.array(scene.cuts) % beat
    return bool(np.all(np.minimum(offsets, beat - offsets) <= 1.01 / synthetic.FPS))


def real_clips(paths: list[Path]) -> list[Clip]:
    """Return the videos of files and folders, with their detected cuts and measured tags."""
    files = [file for path in paths for file in (sorted(path.glob("*.mp4")) if path.is_dir() else [path])]
    clips = []
    for file in files:
        clip = video.open(file)
        features = clip.visual_features()
        cuts = tuple(cut.time for cut in features.cuts)
        light = float(np.mean(features.brightness))
        clips.append(Clip(file.stem, "real", clip, HeuristicTagger().tag(clip, Tags()), cuts, light))
    return clips


def _encode(scene: synthetic.Scene, seconds: float, path: Path) -> None:
    size = f"{synthetic.WIDTH}x{synthetic.HEIGHT}"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(synthetic.FPS), "-i", "pipe:0"]
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1"]
    partial = path.with_suffix(".part.mp4")
    frames = (image.tobytes() for image in synthetic.render_frames(scene, seconds))
    ffmpeg.run_ffmpeg([*raw, *encoder, ffmpeg.file_url(partial)], frames, ENCODE_TIMEOUT_S)
    partial.replace(path)


class Teacher:
    """Sketch as in the training data, whose scores pass through the codec."""

    num_parameters, weights_mb = 0, 0.0

    def __init__(self) -> None:
        self.key, self.codec = f"sketch-{code_hash(CODE)}", ScoreCodec()

    def write(self, clip: Video, tags: Tags, seed: int) -> tuple[NDArray[np.int64], Soundtrack]:
        midi = synthetic.encode_score(synthetic.compose_music(clip, tags, seed))
        codes = self.codec.encode(read_midi(midi, clip.duration))[0].numpy()
        return codes, self.codec.render(codes, clip.duration, tags, seed)


class _RecordingCodec(ScoreCodec):
    codes: NDArray[np.int64]

    def render(self, codes: NDArray[np.integer], *args: Any, **kwargs: Any) -> Soundtrack:
        self.codes = np.asarray(codes, np.int64)
        return super().render(codes, *args, **kwargs)


class _CachingFrontend(VisualFrontend):
    """Visual inputs of each window are made once, so that further seeds do not decode the video again."""

    def window_encoder(self, video: Video) -> Callable[[float, float], VisualInputs]:
        if getattr(self, "_clip", None) is not video:
            self._clip, self._windows, self._encode = video, {}, super().window_encoder(video)

        def encode(start: float, end: float) -> VisualInputs:
            if (start, end) not in self._windows:
                self._windows[start, end] = self._encode(start, end)
            return self._windows[start, end]

        return encode


class Model:
    """A model that writes scores, with the sampling and windows of the recipe, or with `sampling`.

    `name` is its folder, a training checkpoint, of which the EMA weights count, or a repository of the hub.
    """

    def __init__(self, name: str, sampling: dict[str, Any] | None = None) -> None:
        is_training = name.endswith(".ckpt")
        model = load_training_checkpoint(Path(name)) if is_training else V2M.from_pretrained(name)
        device = torch.device("cpu")
        window = model.config.segment_duration
        options, precision = recipe_options()
        options = options or WindowOptions(SamplingConfig(), window, 0.6 * window)
        if options.window > window:
            options = replace(options, window=window, stride=min(options.stride, 0.6 * window))
        self.options = replace(options, sampling=replace(options.sampling, **(sampling or {})))
        self.num_parameters = sum(value.numel() for value in model.parameters())
        stored = [file for info in model.weights for file in info.folder.glob(SAFETENSORS_GLOB)]
        size = sum(file.stat().st_size for file in stored)
        self.weights_mb = (size or sum(value.numel() * value.element_size() for value in model.parameters())) / 1e6
        digest = hashlib.sha256()
        for tensor in model.state_dict().values():
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
        digest.update(repr((self.options, precision, model.config)).encode())
        self.key = f"{digest.hexdigest()[:16]}-{code_hash(CODE)}"
        frontend = _CachingFrontend.load(model, name, device)
        music_engine = MusicGenEngine.from_model(model, name, device, precision)
        assert isinstance(music_engine.codec, ScoreCodec), f"{name} writes no scores"
        self.codec = music_engine.codec = _RecordingCodec(music_engine.codec.config)
        self._engine = VideoMusicEngine(model, music_engine, frontend, device)

    def write(self, clip: Video, tags: Tags, seed: int) -> tuple[NDArray[np.int64], Soundtrack]:
        soundtrack = self._engine.generate(clip, tags, self.options, seed=seed)
        return self.codec.codes, soundtrack


def recipe_options() -> tuple[WindowOptions | None, Precision | None]:
    """Return windows with sampling, and precision, of the recipe; None where there is no recipe."""
    if RECIPE not in list_recipes():
        return None, None
    generator = load_recipe(RECIPE).generator
    assert isinstance(generator, VidMuse), f"the recipe {RECIPE} has a model with video"
    return generator.options, generator.precision


def default_model() -> str:
    """Return the model of the recipe."""
    if RECIPE not in list_recipes():
        raise SystemExit(f"there is no recipe {RECIPE}: give --model")
    generator = load_recipe(RECIPE).generator
    assert isinstance(generator, VidMuse), f"the recipe {RECIPE} has a model with video"
    return generator.model


class PieceStore:
    """Pieces of a writer, made where the folder has none."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.writer, self._folder = writer, folder / writer.key
        self._folder.mkdir(parents=True, exist_ok=True)

    def piece(self, clip: Clip, seed: int, *, shown: Video | None = None, tags: Tags | None = None) -> Piece:
        """Return the music for a clip; `shown` and `tags` replace its own."""
        shown, tags = shown or clip.video, tags or clip.tags
        words = json.dumps(tags.to_dict(), sort_keys=True)
        digest = hashlib.sha256(
            f"{shown.path.parent.name}/{shown.path.name} {shown.duration} {words}".encode()
        ).hexdigest()[:12]
        path = self._folder / f"{digest}-{seed}.npz"
        if not path.is_file():
            shown.visual_features()
            start, processor_start = time.perf_counter(), time.process_time()
            codes, soundtrack = self.writer.write(shown, tags, seed)
            seconds = [time.perf_counter() - start, time.process_time() - processor_start]
            sound = resample(soundtrack.audio, RATE).samples.mean(axis=0)
            with atomic_write(path) as file:
                np.savez_compressed(
                    file, codes=codes.astype(np.int16), sound=(32767 * sound).astype(np.int16), seconds=seconds
                )
        with np.load(path) as arrays:
            sound = Audio(arrays["sound"].astype(np.float32)[None] / 32767, RATE)
            return Piece(arrays["codes"].astype(np.int64), sound, *arrays["seconds"].tolist())

    def pieces(self, clips: list[Clip], seeds: int) -> Iterator[list[Piece]]:
        """Yield the pieces of each clip."""
        for clip in clips:
            yield [self.piece(clip, seed) for seed in range(seeds)]
