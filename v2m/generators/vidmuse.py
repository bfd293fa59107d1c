"""VidMuse generator: user options and early validation; inference is in `vidmuse_engine`.

Tian et al., "VidMuse: A Simple Video-to-Music Generation Framework with Long-Short-Term Modeling" (2024).
"""

from __future__ import annotations

import logging
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.types import Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video
from v2m.generators.base import ModelGenerator
from v2m.generators.musicgen import OOM_HINT
from v2m.generators.options import DecoderName, LMPrecision, WindowOptions

logger = logging.getLogger(__name__)


class VidMuse(ModelGenerator):
    """VidMuse, or a model trained by v2m: instrumental, from the video, and the tags if it reads text.

    Each window is conditioned on the frames of its own seconds, and on some of the whole video.

    Args:
        model: A folder or a repository of the Hugging Face hub, in v2m's or VidMuse's layout.
        device: auto, cuda, cuda:1, mps or cpu.
        precision: Of the language model's weights; None is the device's default.
        low_memory: int8 weights, unless `precision` is given.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
        sampling: Sampling of the tokens; `video_cfg_scale` is the guidance scale of the video.
        window: Seconds of one window, at most the length that the model was trained on.
        stride: Seconds from one window to the next; the overlap is the next one's prompt.
        decoder: What turns codes into sound: EnCodec, or MultiBand Diffusion, which needs the package audiocraft.
        fast_frames: Decode VidMuse's frames at reduced size, in less time; they differ by some gray levels from those
            of its training. Other models keep what their checkpoint says.
    """

    def __init__(
        self,
        *,
        model: str = "Zeyue7/VidMuse",
        device: str = "auto",
        precision: LMPrecision | None = None,
        low_memory: bool = False,
        keep_loaded: bool = False,
        sampling: SamplingConfig | None = None,
        window: float = 30.0,
        stride: float = 18.0,
        decoder: DecoderName = "encodec",
        fast_frames: bool = False,
    ) -> None:
        super().__init__(device, keep_loaded=keep_loaded, oom_hint=OOM_HINT)
        if sampling is not None and sampling.cfg_beta is not None:
            raise UsageError("cfg_beta has no effect on this generator, which follows no style: give video_cfg_scale")
        self.fast_frames = fast_frames
        self.model, self.options = model, WindowOptions(sampling or SamplingConfig(), window, stride)
        self.options.check_overlap()
        self._add_capabilities(model)
        self.precision: LMPrecision | None = precision or ("int8" if low_memory else None)
        self.decoder: DecoderName = decoder

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the model and what it needs, with their licenses."""
        from v2m.pretrained.licenses import checkpoint_components, multiband_components

        return checkpoint_components(self.model) + multiband_components(self.decoder)

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights; check for a visual conditioner, and the window against that of the training."""
        choose_device(self._device)
        with self._engine.model() as engine:
            self.options.check_length(engine.model.config.segment_duration)
            if tags.negative and not engine.model.config.uses_text:
                logger.warning("%r has no text encoder: unwanted words have no effect", self.model)
            self.weights = engine.model.weights

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
            return engine.generate(video, tags, self.options, seed=seed, stems=stems, progress=progress)

    def _load(self) -> Any:
        from v2m.generators.vidmuse_engine import VideoMusicEngine

        device = choose_device(self._device)
        return VideoMusicEngine.load(
            self.model, device, self.precision, decoder=self.decoder, fast_frames=self.fast_frames
        )
