"""MusicGen generator: user options and early validation; inference is in `musicgen_engine`.

Copet et al., "Simple and Controllable Music Generation" (2023). A melody loses drums and bass (section 2.3) where
Demucs is on this machine; it is not downloaded for this. MusicGen-Style is Rouard et al., "Audio Conditioning for Music
Generation via Discrete Bottleneck Features" (2024).
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.types import Audio, Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import ModelGenerator
from v2m.generators.options import DecoderName, LMPrecision, WindowOptions
from v2m.generators.style_excerpt import STYLE_MODEL, StyleOptions
from v2m.media import audio as sound_files

MELODY_MODELS = "facebook/musicgen-melody, -melody-large, -stereo-melody or -stereo-melody-large"
MELODY_STEMS = ("vocals", "other")
OOM_HINT = "try `low_memory=True`, `generator.precision=int8` or a smaller `generator.model`"


class MusicGen(ModelGenerator):
    """MusicGen, or a model trained like it: instrumental, with prompts made from the tags.

    The weights of facebook/musicgen-* are licensed CC-BY-NC-4.0: not for commercial use.

    Args:
        model: A folder or a repository of the Hugging Face hub, in v2m's, transformers' or audiocraft's layout:
            facebook/musicgen-small, -medium, -large, -melody, -melody-large and their -stereo- variants, and -style.
        device: auto, cuda, cuda:1, mps or cpu.
        precision: Of the language model's weights; None is the device's default.
        low_memory: int8 weights, unless `precision` is given.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
        sampling: Sampling of the tokens.
        window: Seconds of one window, at most the length that the model was trained on.
        stride: Seconds from one window to the next; the overlap is the next one's prompt.
        decoder: What turns codes into sound: EnCodec, or MultiBand Diffusion, which needs the package audiocraft.
        style: Sound or video with an excerpt whose style is followed, as by `--reference`; for facebook/musicgen-style.
            `sampling.cfg_beta` (audiocraft's demo has 5) lets the text lead more than the style.
        style_start: Second of that file at which the excerpt starts; drawn by the seed unless given.
        style_seconds: Length of the excerpt, 1.5 to 4.5.
        eval_q: Codebooks of the style's quantizer, 1 to 6: fewer leave the music freer; the checkpoint's own number
            unless given.
        use_text: Whether the text made from the tags conditions the music beside the style.
    """

    capabilities = frozenset({"melody", "reference"})

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
        style: Path | None = None,
        style_start: float | None = None,
        style_seconds: float = 3.0,
        eval_q: int | None = None,
        use_text: bool = True,
    ) -> None:
        super().__init__(device, keep_loaded=keep_loaded, oom_hint=OOM_HINT)
        if sampling is not None and sampling.video_cfg_scale is not None:
            raise UsageError("video_cfg_scale has no effect on this generator, which takes no video: give cfg_scale")
        self.model, self.options = model, WindowOptions(sampling or SamplingConfig(), window, stride)
        self.options.check_overlap()
        self._add_capabilities(model)
        self.precision: LMPrecision | None = precision or ("int8" if low_memory else None)
        self.decoder: DecoderName = decoder
        self._separator: WeightsInfo | None = None  # of the melody's stems
        style = None if style is None else Path(style)
        self.style, self.use_text = StyleOptions(style, style_start, style_seconds, eval_q), use_text

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the model and what it needs, with their licenses."""
        from v2m.pretrained.licenses import checkpoint_components, multiband_components

        return checkpoint_components(self.model) + multiband_components(self.decoder)

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights; check the melody, and the window against that of the training."""
        choose_device(self._device)
        style = self._style_options(controls)
        if controls.melody is not None:
            sound_files.validate_melody(controls.melody)
        with self._engine.model() as engine:
            if controls.melody is not None and not engine.supports_melody:
                raise UsageError(f"{self.model!r} follows no melody: give {MELODY_MODELS} as `generator.model`")
            self._check_style(engine, style)
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
        melody, path, source, condition = None, None, None, None
        style, facts = self._style_options(controls), dict[str, Any]()
        with self._engine.model() as engine:
            if controls.melody is not None:
                path = str(controls.melody)
                melody = sound_files.load(controls.melody, engine.codec.spec.sample_rate, max(video.duration, 1.0))
                melody, source = _isolate_melody(melody, self._separator, self._device)
            if style.file is not None:
                excerpt, start = style.read(engine.codec.spec.sample_rate, seed)
                encoder = engine.style_encoder()
                condition = encoder.encode(excerpt, style.eval_q)
                facts = {"file": str(style.file), "start": round(start, 3), "seconds": style.seconds}
                facts |= {"eval_q": encoder.num_quantizers(style.eval_q), "cfg_scale": self.options.sampling.cfg_scale}
                facts |= {"cfg_beta": self.options.sampling.cfg_beta}
            soundtrack = engine.generate(
                video, tags, melody, self.options, seed=seed, style=condition, use_text=self.use_text, stems=stems,
                progress=progress,
            )  # fmt: skip
        metadata = {"melody": path, "melody_source": source, "style_reference": facts or None}
        return replace(soundtrack, metadata={**soundtrack.metadata, **metadata})

    def _style_options(self, controls: Controls) -> StyleOptions:
        """Return the options of the style, whose file may be a reference; UsageError for two files."""
        files = [*controls.reference, *([] if self.style.file is None else [self.style.file])]
        if len(files) > 1:
            raise UsageError("MusicGen follows the style of one recording: give `reference` or `generator.style` once")
        return replace(self.style, file=files[0] if files else None)

    def _check_style(self, engine: Any, style: StyleOptions) -> None:
        """Read the excerpt and load its encoder; UsageError for a style that the model cannot follow."""
        if style.file is None:
            if self.options.sampling.cfg_beta is not None:
                raise UsageError("cfg_beta weighs the text against a style: give `generator.style`, or leave it out")
            if not self.use_text:
                raise UsageError("use_text=False leaves nothing to follow: give `generator.style`, or leave it out")
            return
        if not engine.supports_style:
            raise UsageError(f"{self.model!r} follows no style: give {STYLE_MODEL} as `generator.model`")
        style.read(engine.codec.spec.sample_rate, 0)
        engine.style_encoder().check_eval_q(style.eval_q)

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
