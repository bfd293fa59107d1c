"""A model that is in memory already, such as one in training, as a generator: it writes to what it sees, if it sees."""

from __future__ import annotations

import torch

from v2m.checkpoints import V2M
from v2m.core.errors import UsageError
from v2m.core.types import Controls, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.musicgen.engine import Player
from v2m.generators.musicgen.options import Precision, check_trained, check_windows
from v2m.generators.vidmuse.engine import Seer
from v2m.generators.vidmuse.visual_frontend import Eyes

STRIDE = 0.6  # of the window, which is MusicGen's


class Trained:
    """Told by the tags, by the video, or by both, as the model is. The model stays as it is, where it is.

    Args:
        model: What learns.
        name: Its own, in errors.
        device: Where it is.
        sampling: How the codes are drawn.
        window: Seconds that are written in one go; None is what the model was trained on.
        stride: Seconds from one window to the next; None is 0.6 windows.
        precision: Of the language model's weights; None is what suits the device.

    Raises:
        UsageError: The windows do not suit the model, or it neither sees nor reads.
        MissingError: A frozen part of the model is missing, broken, or another's.
    """

    steers = frozenset()

    def __init__(
        self,
        model: V2M,
        name: str,
        device: torch.device,
        *,
        sampling: SamplingConfig | None = None,
        window: float | None = None,
        stride: float | None = None,
        precision: Precision | None = None,
    ) -> None:
        longest, sees = model.config.segment_duration, model.config.conditioner is not None
        window = longest if window is None else window
        stride = max(0.5, min(STRIDE * window, window - 0.5)) if stride is None else stride
        check_windows(window, stride)
        check_trained(window, longest)
        if not sees and not model.config.uses_text:
            raise UsageError(f"{name!r} neither sees nor reads: there is nothing by which to write music for a video")
        self._how = {"sampling": sampling or SamplingConfig(), "window": window, "stride": stride}
        eyes = Eyes.load(model, name, device) if sees else None
        self._player = Player.of(model, name, device, precision, keep=True)
        self._seer = None if eyes is None else Seer(model, self._player, eyes, device)

    @property
    def weights(self) -> tuple[WeightsInfo, ...]:
        return self._player.weights

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,  # noqa: ARG002 - there are none, and they are not among what it steers
        controls: Controls | None = None,  # noqa: ARG002 - likewise
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration` at the codec's rate; the same arguments give the same bytes on one
        machine."""
        if self._seer is not None:
            return self._seer.play(video, tags, seed=seed, progress=progress, **self._how)
        return self._player.play(video, tags, None, seed=seed, progress=progress, **self._how)
