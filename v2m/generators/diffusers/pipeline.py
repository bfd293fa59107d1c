"""The generator that runs diffusers' pipelines: what a user sets, and what is refused before any work.

Nothing here imports torch, so that a wrong command or video is told at once. There is no TYPE_CHECKING block either:
jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.timing import seconds_of
from v2m.core.types import Audio, Controls, ProgressFn, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.base import GeneratorBase
from v2m.generators.diffusers.arguments import DiffusersOptions, ace_step_arguments, stable_audio_arguments
from v2m.media import audio as sound_files
from v2m.pretrained.weights import announce_license, fetch

OOM_HINT = "try --low-memory, fewer --candidates or a smaller --generator.model"
STABILITY_LICENSE = "stabilityai community license: commercial use up to a yearly revenue, see its page"
LICENSES = {"ace-step/": "mit", "stabilityai/": STABILITY_LICENSE}  # where a folder has no info
PROBE_RATE, MIN_AUDIO_S = 16_000, 1.0  # Hz at which a sound is read to see whether it can be; seconds
MAX_REFERENCE_S = 240.0  # seconds of a style
MAX_INPAINT_SHARE = 0.75  # of the longest that a model writes in one go may be new, so that it hears what is around it

logger = logging.getLogger(__name__)


class DiffusersGenerator(GeneratorBase):
    """ACE-Step 1.5, Stable Audio Open or Stable Audio 3, as diffusers runs them. Instrumental unless asked otherwise.

    ACE-Step (MIT) is told tempo and key apart from the words, sings lyrics, follows the style of a recording and its
    tune. Stable Audio (Stability AI's community license) is led away from unwanted words, and follows a tune.

    Args:
        model: A folder in diffusers' layout or a repository of the Hugging Face hub: ACE-Step/acestep-v15-xl-turbo-
            diffusers, ACE-Step/acestep-v15-xl-base-diffusers, stabilityai/stable-audio-open-1.0 (its license must be
            accepted there first), or what diffusers' converter makes of stabilityai/stable-audio-3-medium.
        steps: How often noise is taken away; None is what the model was made for, 8 to 100.
        guidance: How many times stronger the words lead than they would by themselves, 1 is no guidance; None is what
            the model was made for. Without effect on distilled ones (ACE-Step turbo, Stable Audio 3).
        melody_strength: How closely a melody is followed, 0 to 1.
        metre: Beats of a bar: 2, 3, 4 or 6.
        language: Of the lyrics, as two letters.
        device: auto, cuda, cuda:1, mps or cpu.
        low_memory: Each part is on the device only while it works; on the CPU, weights in bfloat16.
        keep_loaded: Whether the model stays in memory, for a service or a folder of videos.
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
        problems = [] if steps is None or 1 <= steps <= 1000 else [f"steps {steps} must lie between 1 and 1000"]
        problems += [] if cfg_scale is None or 0 <= cfg_scale <= 100 else [f"cfg_scale {cfg_scale:g} must be 0 to 100"]
        problems += [] if 0 <= melody_strength <= 1 else [f"melody_strength {melody_strength:g} must lie in 0 to 1"]
        if problems:
            raise UsageError("; ".join(problems))
        self.model = model
        self.options = DiffusersOptions(steps, cfg_scale, melody_strength, meter, vocal_language)
        self.weights: tuple[WeightsInfo, ...] = ()
        self._device, self._low_memory, self._keep_loaded = device, low_memory, keep_loaded
        self._pipeline: LazyModel[Any] = LazyModel(self._load, OOM_HINT)

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Makes sure that all weights are on this machine, downloading what is not, and that the model can do what is
        asked; one line on stderr says their license.

        Raises:
            DependencyError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: A melody or reference is no sound, or the model follows none; or there is no such device.
        """
        choose_device(self._device)
        info = self._read_info()
        ace = info.kind == "AceStepPipeline"
        if controls.reference and not ace:
            raise UsageError(f"{self.model!r} follows no style: give ACE-Step, or the recording as --melody")
        if len(controls.reference) > 1:
            raise UsageError("ACE-Step follows the style of one recording: give --reference once")
        if controls.melody is not None and not info.supports_melody:
            raise UsageError(f"{self.model!r} lacks what hears a tune (audio_tokenizer): --melody cannot be followed")
        for path in (*controls.reference, *filter(None, [controls.melody])):
            _check_audio(path)
        anew, most = controls.inpaint, MAX_INPAINT_SHARE * info.max_duration
        if anew is not None and anew.end - anew.start > most:
            raise UsageError(
                f"{anew.end - anew.start:g} s are more than {self.model!r} can write anew at once: "
                f"give {most:g} s at most"
            )
        if tags.vocals and not ace:
            logger.warning("vocals were asked for: %r plays instruments only", self.model)
        if tags.vocals and ace and not tags.lyrics.strip():
            logger.warning("vocals were asked for but there are no lyrics: the music is instrumental; give --lyrics")
        if self.options.cfg_scale not in {None, 1.0} and not info.supports_cfg and ace:
            logger.warning("cfg_scale has no effect: it is built into the weights of %r", self.model)
        if tags.negative and (ace or not (info.supports_cfg or (self.options.cfg_scale or 1) > 1)):
            logger.warning("%r is not led away from unwanted words: they are left out of what it is told", self.model)
        announce_license(self.weights[0])

    def validate_video(self, video: Video, controls: Controls) -> None:
        """Raises UsageError where the video is too long for a melody to be followed, which is done in one go."""
        info, seconds = self._read_info(), video.duration
        if controls.melody is None or info.kind == "StableAudioPipeline":
            return
        if controls.inpaint is None and seconds > info.max_duration:
            raise UsageError(
                f"{self.model!r} follows a melody for {info.max_duration:g} s at most, and the video lasts "
                f"{seconds:.1f} s: give --end {info.max_duration:g}, or no --melody"
            )

    def release(self) -> None:
        """Frees the model, unless it is to be kept."""
        if not self._keep_loaded:
            self._pipeline.release()

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
        """Music of exactly `video.duration` at the model's rate; the same arguments give the same bytes on one machine.

        `facts` says what the model was told.

        Raises:
            UsageError, DependencyError: As in `prepare` and `check`.
            MemoryError: Says what to lower.
        """
        return self.generate_batch(video, tags, [seed], controls=controls, progress=progress)[0]

    def generate_batch(
        self,
        video: Video,
        tags: Tags,
        seeds: Sequence[int],
        *,
        stems: bool = False,  # noqa: ARG002 - as in generate
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> list[Soundtrack]:
        """A piece for each seed, side by side in one batch; otherwise as `generate`."""
        from v2m.generators.inpaint import InpaintSource

        controls = controls or Controls()
        anew = controls.inpaint
        kept = None if anew is None else InpaintSource.load(anew, video.duration)
        seconds = video.duration
        self.prepare(tags, controls)
        self.validate_video(video, controls)
        info = self._read_info()
        with self._long_form(tags, controls, seconds if kept is None else min(seconds, info.max_duration)) as (
            piece,
            device,
        ):
            facts = {
                **{name: value for name, value in piece.arguments.items() if value is not None},
                "pipeline": info.kind,
                "melody": None if controls.melody is None else str(controls.melody),
                "reference": [str(path) for path in controls.reference],
                "device": device,
            }
            if kept is None:
                sounds = piece.generate(seconds, seeds, progress or _ignore_progress)
                facts |= {"windows": piece.windows(seconds)}
            else:
                heard = sound_files.resample(kept.audio, info.sample_rate)
                made = piece.inpaint(heard, (kept.start, kept.end), seeds, progress or _ignore_progress)
                sounds = [kept.crossfade_in(each) for each in made]
                facts |= {"inpainted": [kept.start, kept.end], "inpaint_source": str(anew and anew.source_path)}
        return [Soundtrack(sound, metadata=facts) for sound in sounds]

    def _read_info(self) -> Any:
        """What the model can do; its files are here afterwards."""
        from v2m.generators.diffusers.pipeline_info import FILES, PipelineInfo

        license = next((text for owner, text in LICENSES.items() if self.model.lower().startswith(owner)), None)
        self.weights = (fetch(self.model, FILES, license=license),)
        return PipelineInfo.from_folder(self.weights[0].folder)

    @contextmanager
    def _long_form(self, tags: Tags, controls: Controls, duration: float) -> Iterator[tuple[Any, str]]:
        """A `LongFormGenerator` with the model in memory, and what it runs on."""
        for name in ("xformers", "bitsandbytes"):  # diffusers imports them; they tell of kernels that they do without
            logging.getLogger(name).setLevel(logging.ERROR)
        from v2m.generators.diffusers.long_form import AudioConditions, LongFormGenerator

        info = self._read_info()
        write = ace_step_arguments if info.kind == "AceStepPipeline" else stable_audio_arguments
        arguments = {
            **write(tags, self.options),
            "num_inference_steps": self.options.steps,
            "guidance_scale": self.options.cfg_scale if info.supports_cfg or info.kind != "AceStepPipeline" else None,
        }
        if not arguments["prompt"]:
            logger.warning("no tag says what the music should be: it is written without a prompt; give --tags.genres")

        def load(path: Path | None, most: float) -> Audio | None:
            return None if path is None else sound_files.load(path, info.sample_rate, most)

        reference = controls.reference[0] if controls.reference else None
        sounds = AudioConditions(load(controls.melody, max(duration, 1.0)), load(reference, MAX_REFERENCE_S))
        with self._pipeline.model() as pipeline:
            strength = self.options.melody_strength
            yield LongFormGenerator(pipeline, info, arguments, strength, sounds), choose_device(self._device).type

    def _load(self) -> Any:
        from v2m.generators.diffusers.loading import load_pipeline

        device = choose_device(self._device)
        return load_pipeline(self.weights[0].folder, self._read_info().kind, device, low_memory=self._low_memory)


def _check_audio(path: Path) -> None:
    sound = sound_files.load(path, PROBE_RATE, MIN_AUDIO_S)
    if seconds_of(len(sound), sound.sample_rate) < MIN_AUDIO_S:
        raise UsageError(f"{str(path)!r}: a melody or reference must last a second or more")


def _ignore_progress(fraction: float) -> None:
    pass
