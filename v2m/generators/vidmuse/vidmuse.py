"""VidMuse generator: user options and early validation; inference is in `engine`.

Tian et al., "VidMuse: A Simple Video-to-Music Generation Framework with Long-Short-Term Modeling" (2024).

Nothing here imports torch, so that a wrong command or video is refused at once. There is no TYPE_CHECKING block either:
jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

import logging
from typing import Any

from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.types import Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import GeneratorBase
from v2m.generators.musicgen.options import Precision, check_window, check_window_length, resolve_precision

OOM_HINT = "try --low-memory, --generator.precision int8 or a smaller --generator.model"

logger = logging.getLogger(__name__)


class VidMuse(GeneratorBase):
    """VidMuse, or a model trained by v2m: instrumental, from the video, and from the tags if it has a text encoder.

    Each window is conditioned on the frames of its own seconds, and on some of the whole video.

    Args:
        model: A folder or a repository of the Hugging Face hub, in v2m's or VidMuse's layout.
        device: auto, cuda, cuda:1, mps or cpu.
        precision: Of the language model's weights; None is the device's default.
        low_memory: int8 weights, unless `precision` is given.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
        sampling: How the codes are drawn; its `video_cfg_scale` says how strongly the picture leads.
        window: Seconds of one window, at most the length that the model was trained on.
        stride: Seconds from one window to the next; the overlap is the next one's prompt.
    """

    capabilities = frozenset()

    def __init__(
        self,
        *,
        model: str = "Zeyue7/VidMuse",
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
        self.model, self.window, self.stride = model, window, stride
        self.precision: Precision | None = resolve_precision(precision, low_memory)
        self.weights: tuple[WeightsInfo, ...] = ()
        self._device, self._keep_loaded = device, keep_loaded
        self._engine: LazyModel[Any] = LazyModel(self._load, OOM_HINT)

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights and check device and window.

        Raises:
            DependencyError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: The model has no visual conditioner or was trained on shorter windows, or there is no such
                device.
            MemoryError: The message names an option to lower.
        """
        choose_device(self._device)
        with self._engine.model() as engine:
            training_window = engine.music_engine.training_window
            check_window_length(self.window, training_window)
            if tags.negative and not engine.reads_text:
                logger.warning("%r has no text encoder: unwanted words have no effect", self.model)
            self.weights = engine.music_engine.weights

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
        """Generate music of exactly `video.duration` at the codec's rate; deterministic on one machine.

        `metadata` has the prompt and the visual input settings.

        Raises:
            UsageError, DependencyError: As in `prepare`.
            MemoryError: The message names an option to lower.
        """
        self.prepare(tags, controls or Controls())
        with self._engine.model() as engine:
            return engine.generate(
                video, tags, sampling=self.sampling, window=self.window, stride=self.stride, seed=seed,
                progress=progress,
            )  # fmt: skip

    def _load(self) -> Any:
        from v2m.generators.vidmuse.engine import VideoMusicEngine

        return VideoMusicEngine.load(self.model, choose_device(self._device), self.precision)
