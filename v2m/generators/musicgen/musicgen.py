"""The MusicGen generator: what a user sets, and what is refused before any work. The work itself is in `engine`.

Copet et al., "Simple and Controllable Music Generation" (2023).

Nothing here imports torch, so that a wrong command or video is told at once. There is no TYPE_CHECKING block either:
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
    """MusicGen, or a model trained like it. Instrumental; told by the tags, and led away from those that are unwanted.

    The weights of facebook/musicgen-* are licensed CC-BY-NC-4.0: not for commercial use.

    Args:
        model: A folder or a repository of the Hugging Face hub, in v2m's, transformers' or audiocraft's layout:
            facebook/musicgen-small, -medium, -large, -melody, -melody-large and their -stereo- variants.
        device: auto, cuda, cuda:1, mps or cpu.
        precision: Of the language model's weights; None is what suits the device.
        low_memory: int8, unless precision says otherwise.
        keep_loaded: Whether the model stays in memory, for a service or a folder of videos.
        sampling: How the codes are drawn.
        window: Seconds that are written in one go, at most what the model was trained on.
        stride: Seconds from one window to the next, which goes on from what the two have in common.
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
            raise UsageError("video_cfg_scale has no effect: this generator is told by words; give guidance")
        self.model, self.window, self.stride = model, window, stride
        self.precision: Precision | None = resolve_precision(precision, low_memory)
        self.weights: tuple[WeightsInfo, ...] = ()
        self._separator: WeightsInfo | None = None  # of the melody's stems
        self._device, self._keep_loaded = device, keep_loaded
        self._engine: LazyModel[Any] = LazyModel(self._load, OOM_HINT)

    def prepare(self, tags: Tags, controls: Controls) -> None:  # noqa: ARG002 - any tags will do
        """Makes sure that all weights are on this machine, downloading what is not, and that device, window and melody
        can be used.

        Raises:
            DependencyError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: The melody is no sound or the model follows none, the model was trained on shorter windows, or
                there is no such device.
            MemoryError: Says what to lower.
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
        """Frees the model, unless it is to be kept."""
        if not self._keep_loaded:
            self._engine.release()

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,  # noqa: ARG002 - there are none, and they are not among what it steers
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration` at the codec's rate, mono or, by a stereo model, stereo; the same arguments
        give the same bytes on one machine. `facts` says what the model was told.

        Raises:
            UsageError, DependencyError: As in `prepare`.
            MemoryError: Says what to lower.
        """
        controls = controls or Controls()
        self.prepare(tags, controls)
        with self._engine.model() as engine:
            melody, heard = None, None
            if controls.melody is not None:
                melody = sound_files.load(controls.melody, engine.sample_rate, max(video.duration, 1.0))
                melody, heard = isolate_melody(melody, self._separator, self._device)
            score = engine.generate(
                video, tags, melody, sampling=self.sampling, window=self.window, stride=self.stride, seed=seed,
                progress=progress,
            )  # fmt: skip
        path = None if controls.melody is None else str(controls.melody)
        return replace(score, metadata={**score.metadata, "melody": path, "melody_source": heard})

    def _load(self) -> Any:
        from v2m.generators.musicgen.engine import MusicGenEngine

        return MusicGenEngine.load(self.model, choose_device(self._device), self.precision)

    def _check_controls(self, supports_melody: bool, training_window: float, controls: Controls) -> None:
        if controls.melody is not None and not supports_melody:
            raise UsageError(f"{self.model!r} follows no melody: give {MELODY_MODELS} as --generator.model")
        check_window_length(self.window, training_window)
