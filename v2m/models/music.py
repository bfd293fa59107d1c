"""What learns, as one module: the music language model and what leads conditions into it. No files, no frozen encoders.

B batch, L text tokens, C chroma frames, F video frames, S condition tokens, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from v2m.models.condition import Condition, join
from v2m.models.conditioner import Conditioner, ConditionerConfig
from v2m.models.lm import LM, LMConfig
from v2m.types import Sampling

Branch = tuple[float, Condition | None]  # a share of the guided logits, and what they are conditioned on


@dataclass(frozen=True)
class MusicConfig:
    """Sizes of everything that learns.

    Args:
        lm: Of the language model.
        text: Width of the text encoder's tokens; None for a model that reads no text.
        chroma: Pitch classes of a melody, for models that follow one.
        conditioner: Of the visual conditioner, for models that see.
        window: Seconds of music that the model was trained on.
    """

    lm: LMConfig = field(default_factory=LMConfig)
    text: int | None = 768
    chroma: int | None = None
    conditioner: ConditionerConfig | None = None
    window: float = 30.0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> MusicConfig:
        """From what a YAML holds; the opposite of `plain`.

        Raises:
            ValueError, TypeError: A setting is unknown or none that makes a model.
        """
        given = dict(plain)
        seen = given.get("conditioner")
        given["lm"] = LMConfig(**given.get("lm") or {})
        given["conditioner"] = None if seen is None else ConditionerConfig(**seen)
        return cls(**given)

    @property
    def plain(self) -> dict[str, Any]:
        """Numbers, strings and lists only."""
        found = asdict(self)
        found["lm"]["delays"] = None if self.lm.delays is None else list(self.lm.delays)
        return found


class MusicModel(nn.Module):
    """The language model `lm`, and the layers that bring text, melody and video to its width."""

    def __init__(self, config: MusicConfig) -> None:
        super().__init__()
        self.config = config
        width = config.lm.width
        self.lm = LM(config.lm)
        self.text = None if config.text is None else nn.Linear(config.text, width)
        self.chroma = None if config.chroma is None else nn.Linear(config.chroma, width)
        self.conditioner = None if config.conditioner is None else Conditioner(config.conditioner, width)

    def read(self, encoded: Condition) -> Condition:
        """What the text encoder gives, (B, L, `config.text`) → (B, L, D), 0 where there is no token."""
        assert self.text is not None, "this model reads no text"
        tokens = self.text(encoded.tokens.to(self.text.weight.dtype))
        return Condition(tokens * encoded.mask[..., None], encoded.mask)

    def hear(self, chroma: Tensor) -> Condition:
        """A melody's chroma (B, C, `config.chroma`) → (B, C, D)."""
        assert self.chroma is not None, "this model follows no melody"
        return Condition.whole(self.chroma(chroma.to(self.chroma.weight.dtype)))

    def branches(
        self,
        sampling: Sampling,
        *,
        text: Condition | None = None,
        video: Condition | None = None,
        melody: Condition | None = None,
        without: Condition | None = None,
    ) -> list[Branch]:
        """What is to be decoded side by side for classifier-free guidance: branches whose shares sum to 1.

        With guidance t for text and v for video: (1 − v) · nothing + (v − t) · video + t · all. Branches of share 0
        are left out, so that guidance 1 costs nothing.

        Args:
            sampling: Holds both weights.
            text, video, melody: Conditions (B, …, D); a melody belongs to the text.
            without: What is led away from, in the place of nothing; a text, and by itself one, too.
        """
        told = any(each is not None for each in (text, melody, without))
        if not told and video is None:  # nothing to be guided by
            return [(1.0, None)]
        t = sampling.guidance
        v = t if video is None or sampling.video_guidance is None else sampling.video_guidance
        t = t if told else v
        if self.config.lm.cross_attention:
            nothing, seen, both = without, video, join(melody, text, video)
        else:
            nothing, seen, both = self._in_front(text, video, melody, without)
        found = [(1.0 - v, nothing), (v - t, seen), (t, both)]
        return [(share, condition) for share, condition in found if share != 0]

    def _in_front(
        self, text: Condition | None, video: Condition | None, melody: Condition | None, without: Condition | None
    ) -> tuple[Condition | None, Condition | None, Condition | None]:
        """Nothing, the video and all as what stands before the codes, whose places must be the same in each: zeros for
        a text or video that is not there, the chroma of silence for a melody, as in transformers."""
        silent = None
        if melody is not None:
            assert self.config.chroma is not None, "this model follows no melody"
            first = torch.zeros(self.config.chroma, device=melody.tokens.device)
            first[0] = 1
            silent = self.hear(first.expand(*melody.tokens.shape[:2], -1))
        length = max((each.tokens.shape[1] for each in (text, without) if each is not None), default=0)
        like = next(each.tokens for each in (text, without, melody, video) if each is not None)
        no_text, no_video = _zeros(like, length), None if video is None else _zeros(like, video.tokens.shape[1])
        text, without = _filled(text, no_text), _filled(without, no_text)
        return join(silent, without, no_video), join(silent, no_text, video), join(melody, text, video)


def _zeros(like: Tensor, length: int) -> Condition:
    return Condition.whole(like.new_zeros(like.shape[0], length, like.shape[2]))


def _filled(condition: Condition | None, zeros: Condition) -> Condition:
    """As long as `zeros`, with them at its end."""
    if condition is None:
        return zeros
    rest = condition.tokens.shape[1]
    joined = join(condition, Condition(zeros.tokens[:, rest:], zeros.mask[:, rest:]))
    assert joined is not None
    return joined
