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
from v2m.generators.musicgen.engine import Player
from v2m.generators.vidmuse.visual_frontend import Eyes
from v2m.models.conditioning import Condition
from v2m.models.inference.fast_linear import Precision
from v2m.models.music_model import CFGBranch


class Seer:
    """The model with its eyes; what plays is MusicGen's player.

    Args:
        model: What learns.
        player: Of the same model.
        eyes: Of the same model, on `device`.
        device: Where the work is done.
    """

    def __init__(self, model: V2M, player: Player, eyes: Eyes, device: torch.device) -> None:
        self._model, self.player, self._eyes, self._device = model, player, eyes, device
        self._black: Condition | None = None

    @classmethod
    def load(cls, name: str, device: torch.device, precision: Precision | None) -> Seer:
        """From a checkpoint of VidMuse's layout or our own, a folder or a repository of the hub.

        Raises:
            MissingError: Weights are missing, broken, or do not belong together; says which.
            UsageError: The model does not see.
        """
        model = V2M.from_pretrained(name)
        if model.config.conditioner is None:
            raise UsageError(f"{name!r} does not see: give it to the recipe musicgen, or give a VidMuse here")
        eyes = Eyes.load(model, name, device)
        return cls(model, Player.of(model, name, device, precision), eyes, device)

    @property
    def reads_text(self) -> bool:
        return self._model.config.uses_text

    @torch.inference_mode()
    def play(
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
        model, rate = self.player.settle(), self.player.code_rate
        line, unwanted = (prompts.line(tags), prompts.unwanted(tags)) if self.reads_text else ("", "")
        text, without = self.player.read(line, unwanted) if line or unwanted else (None, None)
        look = None if sampling.video_cfg_scale == 0 and text is not None else self._eyes.open(video)
        if look is not None and not model.config.has_null_tokens and without is None:
            without = self._nothing()

        def branches(begin: int, end: int) -> Sequence[CFGBranch]:
            seen = look and model.encode_video(look(seconds_of(begin, rate), seconds_of(end, rate)).to(self._device))
            return model.cfg_branches(sampling, text=text, video=seen, negative=without)

        score = self.player.perform(
            video.duration, branches, sampling=sampling, window=window, stride=stride, seed=seed, progress=progress
        )
        shown = look and self._eyes.shown.to_dict()
        return replace(score, metadata={"prompt": line, "unwanted": unwanted, "visual_input": shown, **score.metadata})

    def _nothing(self) -> Condition:
        """What VidMuse is led away from, made once."""
        if self._black is None:
            self._black = self._model.encode_video(self._eyes.nothing().to(self._device))
        return self._black
