"""MusicGen generator: user options and early validation; inference is in `engine`.

Copet et al., "Simple and Controllable Music Generation" (2023).

Nothing here imports torch, so that a wrong command or video is refused at once. There is no TYPE_CHECKING block either:
jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import GeneratorBase
from v2m.generators.musicgen.melody import find_separator, isolate_melody
from v2m.generators.musicgen.options import Precision, check_window, check_window_length, resolve_precision
from v2m.media import audio as sound_files

MELODY_MODELS = "facebook/musicgen-melody, -melody-large, -stereo-melody or -stereo-melody-large"
OOM_HINT = "try --low-memory, --generator.precision int8 or a smaller --generator.model"


class MusicGen(GeneratorBase):
    """MusicGen, or a model trained like it: instrumental, with a prompt and a negative prompt from the tags.

    The weights of facebook/musicgen-* are licensed CC-BY-NC-4.0: not for commercial use.

    Args:
        model: A folder or a repository of the Hugging Face hub, in v2m's, transformers' or audiocraft's layout:
            facebook/musicgen-small, -medium, -large, -melody, -melody-large and their -stereo- variants.
        device: auto, cuda, cuda:1, mps or cpu.
        precision: Of the language model's weights; None is the device's default.
        low_memory: int8 weights, unless `precision` is given.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
        sampling: Sampling of the tokens.
        window: Seconds of one window, at most the length that the model was trained on.
        stride: Seconds from one window to the next; the overlap is the next one's prompt.
    """

    capabilities = frozenset({"melody"})

    def __init__(
        self,
        *,
        model: str = "facebook/musicgen-small",
        device: str = "auto",
        precision: Precision | None = None,
        low_memory: bool = False,
        keep_loaded: bool = False,
        sampling: SamplingConfig | None = None,
        window: float = 30.0,
        stride: float = 18.0,
    ) -> None:
        check_window(window, stride)
        self.sampling = sampling or SamplingConfig()
        if self.sampling.video_cfg_scale is not None:
            raise UsageError("video_cfg_scale has no effect on this generator, which takes no video: give cfg_scale")
        self.model, self.window, self.stride = model, window, stride
        self.precision: Precision | None = resolve_precision(precision, low_memory)
        self.weights: tuple[WeightsInfo, ...] = ()
        self._separator: WeightsInfo | None = None  # of the melody's stems
        self._device, self._keep_loaded = device, keep_loaded
        self._engine: LazyModel[Any] = LazyModel(self._load, OOM_HINT)

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights and check device, window and melody.

        Raises:
            DependencyError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: The melody is no audio or the model supports none, the model was trained on shorter windows, or
                there is no such device.
            MemoryError: The message names an option to lower.
        """
        choose_device(self._device)
        if controls.melody is not None:
            sound_files.validate_melody(controls.melody)
        with self._engine.model() as engine:
            self._check_controls(engine.supports_melody, engine.training_window, controls)
            self.weights = engine.weights
        self._separator = None if controls.melody is None else find_separator()
        self.weights += () if self._separator is None else (self._separator,)

    def release(self) -> None:
        """Free the model, unless `keep_loaded` is set."""
        if not self._keep_loaded:
            self._engine.release()

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
        """Generate music of exactly `video.duration` at the codec's rate, in the model's channels.

        Deterministic on one machine. `metadata` has the prompt.

        Raises:
            UsageError, DependencyError: As in `prepare`.
            MemoryError: The message names an option to lower.
        """
        controls = controls or Controls()
        self.prepare(tags, controls)
        with self._engine.model() as engine:
            melody, source = None, None
            if controls.melody is not None:
                melody = sound_files.load(controls.melody, engine.sample_rate, max(video.duration, 1.0))
                melody, source = isolate_melody(melody, self._separator, self._device)
            score = engine.generate(
                video, tags, melody, sampling=self.sampling, window=self.window, stride=self.stride, seed=seed,
                progress=progress,
            )  # fmt: skip
        path = None if controls.melody is None else str(controls.melody)
        return replace(score, metadata={**score.metadata, "melody": path, "melody_source": source})

    def _load(self) -> Any:
        from v2m.generators.musicgen.engine import MusicGenEngine

        return MusicGenEngine.load(self.model, choose_device(self._device), self.precision)

    def _check_controls(self, supports_melody: bool, training_window: float, controls: Controls) -> None:
        if controls.melody is not None and not supports_melody:
            raise UsageError(f"{self.model!r} follows no melody: give {MELODY_MODELS} as --generator.model")
        check_window_length(self.window, training_window)
