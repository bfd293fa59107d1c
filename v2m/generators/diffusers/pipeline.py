"""Generator over diffusers' pipelines: user options and early validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.progress import ignore_progress
from v2m.core.prompts import warn_if_empty
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.base import ModelGenerator
from v2m.generators.inpaint import InpaintSource, inpaint_metadata
from v2m.media import audio as sound_files
from v2m.pretrained.weights import announce_license, fetch

OOM_HINT = "try `low_memory=True`, fewer `candidates` or a smaller `generator.model`"
STABILITY_LICENSE = "stabilityai community license: commercial use up to a yearly revenue, see its page"
LICENSES = {"ace-step/acestep-v15-": "mit", "stabilityai/": STABILITY_LICENSE}  # for folders without a model card
MAX_REFERENCE_S = 240.0
MAX_INPAINT_SHARE = 0.75  # of `max_duration`, so that the pipeline gets some audio around the range

logger = logging.getLogger(__name__)


class DiffusersGenerator(ModelGenerator):
    """ACE-Step 1.5, Stable Audio Open or Stable Audio 3; instrumental unless lyrics are given.

    ACE-Step (MIT) takes tempo and key apart from the prompt, lyrics, a reference of style and a melody. Stable Audio
    (Stability AI's community license) takes a negative prompt and a melody.

    Args:
        model: A folder in diffusers' layout or a repository of the Hugging Face hub: ACE-Step/acestep-v15-xl-turbo-
            diffusers, ACE-Step/acestep-v15-xl-base-diffusers, stabilityai/stable-audio-open-1.0 (its license must be
            accepted there first), or what diffusers' converter makes of stabilityai/stable-audio-3-medium.
        steps: Denoising steps; None is the model's recommendation, 8 to 100.
        cfg_scale: Classifier-free guidance scale, 1 is no guidance; None is the model's recommendation. Without effect
            on distilled models (ACE-Step turbo, Stable Audio 3).
        melody_strength: Closeness to the melody, 0 to 1.
        meter: Beats of a bar: 2, 3, 4 or 6.
        vocal_language: Language of the lyrics, two letters.
        device: auto, cuda, cuda:1, mps or cpu.
        low_memory: Keep each component on the device only while it computes; on the CPU, weights in bfloat16.
        keep_loaded: Keep the model in memory, for a service or a folder of videos.
    """

    capabilities = frozenset({"melody", "reference", "inpaint", "vocals"})

    def __init__(
        self,
        *,
        model: str = "ACE-Step/acestep-v15-xl-turbo-diffusers",
        steps: int | None = None,
        cfg_scale: float | None = None,
        melody_strength: float = 0.7,
        meter: Literal[2, 3, 4, 6] | None = None,
        vocal_language: str = "en",
        device: str = "auto",
        low_memory: bool = False,
        keep_loaded: bool = False,
    ) -> None:
        super().__init__(device, keep_loaded=keep_loaded, oom_hint=OOM_HINT)
        problems = [] if steps is None or 1 <= steps <= 1000 else [f"steps {steps} must lie between 1 and 1000"]
        problems += [] if cfg_scale is None or 0 <= cfg_scale <= 100 else [f"cfg_scale {cfg_scale:g} must be 0 to 100"]
        problems += [] if 0 <= melody_strength <= 1 else [f"melody_strength {melody_strength:g} must lie in 0 to 1"]
        if problems:
            raise UsageError("; ".join(problems))
        self.model, self.steps, self.cfg_scale, self.melody_strength = model, steps, cfg_scale, melody_strength
        self.meter, self.vocal_language, self._low_memory = meter, vocal_language, low_memory

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the model, whose folder has text encoder and autoencoder, with its license."""
        from v2m.pretrained.licenses import model_component

        return [model_component("generator", self.model, "generator.model")]

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights, show their license on stderr, and check that the model supports the request."""
        choose_device(self._device)
        info = self._read_info()
        ace = info.kind == "AceStepPipeline"
        if controls.reference and not ace:
            raise UsageError(f"{self.model!r} follows no style: give ACE-Step, or the recording as `melody`")
        if len(controls.reference) > 1:
            raise UsageError("ACE-Step follows the style of one recording: give `reference` once")
        if controls.melody is not None and not info.supports_melody:
            raise UsageError(
                f"{self.model!r} lacks the audio_tokenizer, without which it follows no melody: leave out `melody`"
            )
        for path in (*controls.reference, *filter(None, [controls.melody])):
            sound_files.validate_melody(path)
        inpaint, longest = controls.inpaint, MAX_INPAINT_SHARE * info.max_duration
        if inpaint is not None and inpaint.end - inpaint.start > longest:
            raise UsageError(
                f"{inpaint.end - inpaint.start:g} s are more than {self.model!r} can inpaint at once: "
                f"give {longest:g} s at most"
            )
        if tags.vocals and not ace:
            logger.warning("vocals were asked for: %r plays instruments only", self.model)
        if tags.vocals and ace and not tags.lyrics.strip():
            logger.warning("vocals were asked for but there are no lyrics: the music is instrumental; give `lyrics`")
        if self.cfg_scale not in {None, 1.0} and not info.supports_cfg and ace:
            logger.warning("cfg_scale has no effect: it is built into the weights of %r", self.model)
        if tags.negative and (ace or not (info.supports_cfg or (self.cfg_scale or 1) > 1)):
            logger.warning("%r has no negative prompt: unwanted words are only left out of the prompt", self.model)
        announce_license(self.weights[0])

    def validate_video(self, video: Video, controls: Controls) -> None:
        """Raise UsageError where the video is too long for a melody, which is followed in a single call."""
        info, seconds = self._read_info(), video.duration
        if controls.melody is None or info.kind == "StableAudioPipeline":
            return
        if controls.inpaint is None and seconds > info.max_duration:
            raise UsageError(
                f"{self.model!r} follows a melody for {info.max_duration:g} s at most, and the video lasts "
                f"{seconds:.1f} s: give `end={info.max_duration:g}`, or no `melody`"
            )

    def generate_batch(
        self,
        video: Video,
        tags: Tags,
        seeds: Sequence[int],
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> list[Soundtrack]:
        """Generate music of exactly `video.duration` at the model's rate for each of `seeds`, in one batch."""
        controls, progress, duration = controls or Controls(), progress or ignore_progress, video.duration
        source = None if controls.inpaint is None else InpaintSource.load(controls.inpaint, duration)
        self.prepare(tags, controls)
        self.validate_video(video, controls)
        info = self._read_info()
        arguments = self._pipeline_arguments(info, tags)
        warn_if_empty(arguments["prompt"])
        melody, reference = None, None
        if controls.melody is not None:
            melody_duration = duration if source is None else min(duration, info.max_duration)
            melody = sound_files.load(controls.melody, info.sample_rate, max(melody_duration, 1.0))
        if controls.reference:
            reference = sound_files.load(controls.reference[0], info.sample_rate, MAX_REFERENCE_S)
        for name in ("xformers", "bitsandbytes"):  # diffusers imports them; they warn about missing kernels
            logging.getLogger(name).setLevel(logging.ERROR)
        from v2m.generators.diffusers.long_form import LongFormGenerator

        with self._engine.model() as pipeline:
            generator = LongFormGenerator(
                pipeline, info, arguments, melody=melody, melody_strength=self.melody_strength, reference=reference
            )
            metadata = {
                **{name: value for name, value in generator.arguments.items() if value is not None},
                "pipeline": info.kind,
                "melody": None if controls.melody is None else str(controls.melody),
                "reference": [str(path) for path in controls.reference],
                "device": choose_device(self._device).type,
            }
            if source is None:
                pieces = generator.generate(duration, seeds, progress)
                metadata |= {"windows": generator.windows(duration)}
            else:
                previous = sound_files.resample(source.audio, info.sample_rate)
                inpainted = generator.inpaint(previous, (source.start, source.end), seeds, progress)
                pieces = [source.crossfade_in(piece) for piece in inpainted]
        return [Soundtrack(piece, metadata=metadata | inpaint_metadata(controls.inpaint)) for piece in pieces]

    def _read_info(self) -> Any:
        """`PipelineInfo` of the model, whose files are fetched if needed."""
        from v2m.generators.diffusers.pipeline_info import FILES, PipelineInfo

        license = next((text for owner, text in LICENSES.items() if self.model.lower().startswith(owner)), None)
        self.weights = (fetch(self.model, FILES, license=license),)
        return PipelineInfo.from_folder(self.weights[0].folder)

    def _pipeline_arguments(self, info: Any, tags: Tags) -> dict[str, Any]:
        from v2m.generators.diffusers import pipeline_info

        if info.kind == "AceStepPipeline":
            arguments = pipeline_info.ace_step_arguments(tags, self.meter, self.vocal_language)
        else:
            arguments = pipeline_info.stable_audio_arguments(tags, self.meter)
        supports_cfg = info.supports_cfg or info.kind != "AceStepPipeline"
        guidance_scale = self.cfg_scale if supports_cfg else None
        return {**arguments, "num_inference_steps": self.steps, "guidance_scale": guidance_scale}

    def _load(self) -> Any:
        from v2m.generators.diffusers.loading import load_pipeline

        device = choose_device(self._device)
        return load_pipeline(self.weights[0].folder, self._read_info().kind, device, low_memory=self._low_memory)
