"""MusicGen generator: user options and early validation; inference is in `musicgen_engine`.

Copet et al., "Simple and Controllable Music Generation" (2023). A melody loses drums and bass (section 2.3) where
Demucs is on this machine; it is not downloaded for this.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.types import Audio, Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import ModelGenerator
from v2m.generators.options import DecoderName, LMPrecision, WindowOptions
from v2m.media import audio as sound_files

MELODY_MODELS = "facebook/musicgen-melody, -melody-large, -stereo-melody or -stereo-melody-large"
MELODY_STEMS = ("vocals", "other")
OOM_HINT = "try `low_memory=True`, `generator.precision=int8` or a smaller `generator.model`"


class MusicGen(ModelGenerator):
    """MusicGen, or a model trained like it: instrumental, with prompts made from the tags.

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
        decoder: What turns codes into sound: EnCodec, or MultiBand Diffusion, which needs the package audiocraft.
    """

    capabilities = frozenset({"melody"})

    def __init__(
        self,
        *,
        model: str = "facebook/musicgen-small",
        device: str = "auto",
        precision: LMPrecision | None = None,
        low_memory: bool = False,
        keep_loaded: bool = False,
        sampling: SamplingConfig | None = None,
        window: float = 30.0,
        stride: float = 18.0,
        decoder: DecoderName = "encodec",
    ) -> None:
        super().__init__(device, keep_loaded=keep_loaded, oom_hint=OOM_HINT)
        if sampling is not None and sampling.video_cfg_scale is not None:
            raise UsageError("video_cfg_scale has no effect on this generator, which takes no video: give cfg_scale")
        self.model, self.options = model, WindowOptions(sampling or SamplingConfig(), window, stride)
        self.options.check_overlap()
        self.precision: LMPrecision | None = precision or ("int8" if low_memory else None)
        self.decoder: DecoderName = decoder
        self._separator: WeightsInfo | None = None  # of the melody's stems

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights; check the melody, and the window against that of the training."""
        choose_device(self._device)
        if controls.melody is not None:
            sound_files.validate_melody(controls.melody)
        with self._engine.model() as engine:
            if controls.melody is not None and not engine.supports_melody:
                raise UsageError(f"{self.model!r} follows no melody: give {MELODY_MODELS} as `generator.model`")
            self.options.check_length(engine.model.config.segment_duration)
            self.weights = engine.model.weights
        self._separator = None
        if controls.melody is not None and find_spec("demucs") is not None:
            from v2m.pretrained import demucs

            self._separator = demucs.find_local()
        self.weights += () if self._separator is None else (self._separator,)

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
        controls = controls or Controls()
        self.prepare(tags, controls)
        melody, path, source = None, None, None
        with self._engine.model() as engine:
            if controls.melody is not None:
                path = str(controls.melody)
                melody = sound_files.load(controls.melody, engine.codec.spec.sample_rate, max(video.duration, 1.0))
                melody, source = _isolate_melody(melody, self._separator, self._device)
            soundtrack = engine.generate(video, tags, melody, self.options, seed=seed, progress=progress)
        return replace(soundtrack, metadata={**soundtrack.metadata, "melody": path, "melody_source": source})

    def _load(self) -> Any:
        from v2m.generators.musicgen_engine import MusicGenEngine

        return MusicGenEngine.load(self.model, choose_device(self._device), self.precision, self.decoder)


def _isolate_melody(melody: Audio, weights: WeightsInfo | None, device: str) -> tuple[Audio, str]:
    """Isolate the melody of a recording; also returns a description of the method, for the sidecar."""
    if weights is None:
        return melody, "the whole sound"
    from v2m.pretrained.demucs import Demucs

    stems = Demucs.load(weights.folder, choose_device(device)).extract_stems(melody, MELODY_STEMS)
    return stems, f"{' and '.join(MELODY_STEMS)}, separated by {weights.name}"
