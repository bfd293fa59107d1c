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

        With guidance t for text and v for video: (1 − v) · nothing + (v − t) · video + t · both. Branches of share 0
        are left out, so that guidance 1 costs nothing.

        Args:
            sampling: Holds both weights.
            text, video, melody: Conditions (B, …, D); a melody belongs to the text.
            without: Takes the place of nothing.
        """
        t = sampling.guidance if text is not None or melody is not None else None
        v = (sampling.guidance if sampling.video_guidance is None else sampling.video_guidance) if video else None
        both = join(melody, text, video)
        t = v if t is None else t
        if t is None:  # nothing to be guided by
            return [(1.0, without)]
        v = t if v is None else v
        found = [(1.0 - v, self._nothing(both, without)), (v - t, join(video)), (t, both)]
        return [(share, condition) for share, condition in found if share != 0]

    def _nothing(self, both: Condition | None, without: Condition | None) -> Condition | None:
        """What stands for no condition: with cross-attention none at all; zeros in the place of what stands before the
        codes, which would otherwise move to other positions."""
        if self.config.lm.cross_attention or both is None:
            return without
        zeros = Condition.whole(torch.zeros_like(both.tokens))
        if without is None:
            return zeros
        room = both.tokens.shape[1] - without.tokens.shape[1]
        return join(Condition.whole(zeros.tokens[:, :room]), without) if room > 0 else without
