"""MAGNeT generator: user options and early validation; inference is in `magnet_engine`.

Ziv et al., "Masked Audio Generation using a Single Non-Autoregressive Transformer" (2024).
"""

from __future__ import annotations

from typing import Any

from v2m.core.lazy_model import choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.base import ModelGenerator
from v2m.generators.options import MagnetSampling

OOM_HINT = "try a smaller `generator.model`, such as facebook/magnet-small-10secs"


class Magnet(ModelGenerator):
    """MAGNeT, which is not autoregressive: instrumental, with prompts made from the tags.

    It needs the package audiocraft. The weights of facebook/magnet-* are licensed CC-BY-NC-4.0: not for commercial
    use.

    Args:
        model: A folder or a repository of the Hugging Face hub, in audiocraft's layout: facebook/magnet-small-10secs,
            -medium-10secs, -small-30secs, -medium-30secs.
        device: auto, cuda, cuda:1, mps or cpu.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
        sampling: Sampling of the codes.
        stride: Seconds from one window to the next; the overlap is the next one's prompt. A window is as long as the
            model's training examples; None is 0.6 of it.
    """

    def __init__(
        self,
        *,
        model: str = "facebook/magnet-small-30secs",
        device: str = "auto",
        keep_loaded: bool = False,
        sampling: MagnetSampling | None = None,
        stride: float | None = None,
    ) -> None:
        super().__init__(device, keep_loaded=keep_loaded, oom_hint=OOM_HINT)
        self.model, self.sampling, self.stride = model, sampling or MagnetSampling(), stride

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the model, with its license; it names its text encoder once it is loaded."""
        from v2m.pretrained.licenses import checkpoint_components

        return checkpoint_components(self.model)

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights; check sampling and stride against the model."""
        choose_device(self._device)
        with self._engine.model() as engine:
            engine.validate(self.sampling, self.stride)
            self.weights = engine.weights

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
        """Generate music of exactly `video.duration` at the codec's rate; deterministic on one machine."""
        self.prepare(tags, controls or Controls())
        with self._engine.model() as engine:
            return engine.generate(video, tags, self.sampling, self.stride, seed=seed, progress=progress)

    def _load(self) -> Any:
        from v2m.generators.magnet_engine import MagnetEngine

        return MagnetEngine.load(self.model, choose_device(self._device))
