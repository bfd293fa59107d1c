"""Video-to-music inference: visual and text conditions of each window, over MusicGen's engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from v2m.checkpoints import V2M
from v2m.core import prompts
from v2m.core.errors import UsageError
from v2m.core.timing import seconds_of
from v2m.core.types import ProgressFn, SamplingConfig, Soundtrack, Tags, Video
from v2m.generators.musicgen.engine import MusicGenEngine
from v2m.generators.vidmuse.visual_frontend import VisualFrontend
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference.fast_linear import Precision


class VideoMusicEngine:
    """A model with its visual frontend, over a `MusicGenEngine`.

    Args:
        model: The model.
        music_engine: Engine of the same model.
        frontend: Visual frontend of the same model, on `device`.
        device: The computing device.
    """

    def __init__(
        self, model: V2M, music_engine: MusicGenEngine, frontend: VisualFrontend, device: torch.device
    ) -> None:
        self._model, self.music_engine, self._frontend, self._device = model, music_engine, frontend, device
        self._null_video: Condition | None = None

    @classmethod
    def load(cls, name: str, device: torch.device, precision: Precision | None) -> VideoMusicEngine:
        """Load a checkpoint of VidMuse's layout or our own, a folder or a repository of the hub.

        Raises:
            DependencyError: Weights are missing, broken, or do not belong together; says which.
            UsageError: The model has no visual conditioner.
        """
        model = V2M.from_pretrained(name)
        if model.config.conditioner is None:
            raise UsageError(
                f"{name!r} has no visual conditioner: give it to the recipe musicgen, or give a VidMuse here"
            )
        frontend = VisualFrontend.load(model, name, device)
        return cls(model, MusicGenEngine.from_model(model, name, device, precision), frontend, device)

    @property
    def reads_text(self) -> bool:
        return self._model.config.uses_text

    @torch.inference_mode()
    def generate(
        self,
        video: Video,
        tags: Tags,
        *,
        sampling: SamplingConfig,
        window: float,
        stride: float,
        seed: int,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of exactly `video.duration`; arguments as of `MusicGenEngine.generate`."""
        model, rate = self.music_engine.place_model(), self.music_engine.frame_rate
        prompt, negative_prompt = "", ""
        if self.reads_text:
            prompt, negative_prompt = prompts.build_prompt(tags), prompts.build_negative_prompt(tags)
        text, negative = None, None
        if prompt or negative_prompt:
            text, negative = self.music_engine.encode_text(prompt, negative_prompt)
        use_video = sampling.video_cfg_scale != 0 or text is None
        encode_window = self._frontend.window_encoder(video) if use_video else None
        if use_video and not model.config.has_null_tokens and negative is None:
            negative = self._get_null_video()

        def branches(start: int, end: int) -> Sequence[CFGBranch]:
            condition = None
            if encode_window is not None:
                inputs = encode_window(seconds_of(start, rate), seconds_of(end, rate))
                condition = model.encode_video(inputs.to(self._device))
            return model.cfg_branches(sampling, text=text, video=condition, negative=negative)

        soundtrack = self.music_engine.generate_from_branches(
            video.duration, branches, sampling=sampling, window=window, stride=stride, seed=seed, progress=progress
        )
        metadata = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "visual_input": self._frontend.config.to_dict() if use_video else None,
        }
        return replace(soundtrack, metadata=metadata | dict(soundtrack.metadata))

    def _get_null_video(self) -> Condition:
        """Condition of a black frame, VidMuse's negative; cached."""
        if self._null_video is None:
            self._null_video = self._model.encode_video(self._frontend.black_frame().to(self._device))
        return self._null_video
