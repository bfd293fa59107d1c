"""A model that sees, at work: what it is shown and told of each window, and the piece that it plays to that."""

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
from v2m.models.conditioning import Condition
from v2m.models.inference.fast_linear import Precision
from v2m.models.music_model import CFGBranch


class VideoMusicEngine:
    """The model with its eyes; what plays is MusicGen's player.

    Args:
        model: What learns.
        player: Of the same model.
        eyes: Of the same model, on `device`.
        device: Where the work is done.
    """

    def __init__(
        self, model: V2M, music_engine: MusicGenEngine, frontend: VisualFrontend, device: torch.device
    ) -> None:
        self._model, self.music_engine, self._frontend, self._device = model, music_engine, frontend, device
        self._null_video: Condition | None = None

    @classmethod
    def load(cls, name: str, device: torch.device, precision: Precision | None) -> VideoMusicEngine:
        """From a checkpoint of VidMuse's layout or our own, a folder or a repository of the hub.

        Raises:
            DependencyError: Weights are missing, broken, or do not belong together; says which.
            UsageError: The model does not see.
        """
        model = V2M.from_pretrained(name)
        if model.config.conditioner is None:
            raise UsageError(f"{name!r} does not see: give it to the recipe musicgen, or give a VidMuse here")
        eyes = VisualFrontend.load(model, name, device)
        return cls(model, MusicGenEngine.from_model(model, name, device, precision), eyes, device)

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
        """Music of exactly `video.duration`; arguments as of `v2m.generators.musicgen.engine.Player.play`."""
        model, rate = self.music_engine.place_model(), self.music_engine.frame_rate
        line, unwanted = (
            (prompts.build_prompt(tags), prompts.build_negative_prompt(tags)) if self.reads_text else ("", "")
        )
        text, without = self.music_engine.encode_text(line, unwanted) if line or unwanted else (None, None)
        look = None if sampling.video_cfg_scale == 0 and text is not None else self._frontend.window_encoder(video)
        if look is not None and not model.config.has_null_tokens and without is None:
            without = self._get_null_video()

        def branches(begin: int, end: int) -> Sequence[CFGBranch]:
            seen = look and model.encode_video(look(seconds_of(begin, rate), seconds_of(end, rate)).to(self._device))
            return model.cfg_branches(sampling, text=text, video=seen, negative=without)

        score = self.music_engine.generate_from_branches(
            video.duration, branches, sampling=sampling, window=window, stride=stride, seed=seed, progress=progress
        )
        shown = look and self._frontend.config.to_dict()
        return replace(
            score, metadata={"prompt": line, "negative_prompt": unwanted, "visual_input": shown, **score.metadata}
        )

    def _get_null_video(self) -> Condition:
        """What VidMuse is led away from, made once."""
        if self._null_video is None:
            self._null_video = self._model.encode_video(self._frontend.black_frame().to(self._device))
        return self._null_video
