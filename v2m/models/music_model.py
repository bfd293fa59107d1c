"""What learns, as one module: the music language model and what leads conditions into it. No files, no frozen encoders.

B batch, L text tokens, C chroma frames, S condition tokens, D width of the language model, K codebooks, T steps, V
entries of a codebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from v2m.core.types import SamplingConfig
from v2m.models.conditioning import Condition, join
from v2m.models.lm import LM, LMConfig
from v2m.models.visual.inputs import Seen
from v2m.models.visual.temporal import TimedFrames
from v2m.models.visual.vidmuse import BagOfFrames, ConditionerConfig

Branch = tuple[float, Condition | None]  # a share of the guided logits, and what they are conditioned on
NULLS = 4  # tokens of what stands for no text, and for no video
FAINT = 0.02  # how far from 0 they begin: 0 is what MusicGen was trained on


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

    def __post_init__(self) -> None:
        if self.nulls and not self.lm.cross_attention:
            raise ValueError("conditioner: nulls are learned where the language model has cross_attention alone")

    @property
    def nulls(self) -> bool:
        """Whether what stands for no text and no video is learned."""
        return self.conditioner is not None and self.conditioner.nulls

    @property
    def reads_text(self) -> bool:
        """VidMuse as published has a projection of text that nothing was ever led through."""
        published = self.conditioner is not None and self.conditioner.kind == "vidmuse" and not self.nulls
        return self.text is not None and not published

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
        self.conditioner: BagOfFrames | TimedFrames | None = None
        if config.conditioner is not None:
            shape = TimedFrames if config.conditioner.kind == "v2m" else BagOfFrames
            self.conditioner = shape(config.conditioner, width)
        nulls = (config.nulls and config.reads_text, config.nulls)
        self.null_text, self.null_video = (
            nn.Parameter(FAINT * torch.randn(1, NULLS, width)) if learned else None for learned in nulls
        )

    def read(self, encoded: Condition) -> Condition:
        """What the text encoder gives, (B, L, `config.text`) → (B, L, D), 0 where there is no token."""
        assert self.text is not None, "this model reads no text"
        tokens = self.text(encoded.tokens.to(self.text.weight.dtype))
        return Condition(tokens * encoded.mask[..., None], encoded.mask)

    def hear(self, chroma: Tensor) -> Condition:
        """A melody's chroma (B, C, `config.chroma`) → (B, C, D)."""
        assert self.chroma is not None, "this model follows no melody"
        return Condition.whole(self.chroma(chroma.to(self.chroma.weight.dtype)))

    def see(self, seen: Seen) -> Condition:
        """What is shown of a video → (B, S, D)."""
        assert self.conditioner is not None, "this model does not see"
        return self.conditioner(seen)

    def condition(
        self,
        text: Condition | None,
        seen: Seen | None,
        drop_text: Tensor | None = None,
        drop_video: Tensor | None = None,
    ) -> Condition | None:
        """What a batch is to be conditioned on in training: its text, where the model reads any, and its video, where
        it sees.

        Args:
            text: What the text encoder gives, (B, L, `config.text`); a row without tokens has no text.
            seen: Of the videos.
            drop_text, drop_video: (B,) bool: rows that are to have none. What stands for it is the learned null, where
                there is one, else nothing.
        """
        read = self.read(text) if text is not None and self.config.reads_text else None
        shown = self.see(seen) if seen is not None and self.conditioner is not None else None
        rows = next((len(each.tokens) for each in (read, shown) if each is not None), 1)
        read, shown = _dropped(read, drop_text), _dropped(shown, drop_video)
        return join(_or_null(read, self.null_text, rows), _or_null(shown, self.null_video, rows))

    def forward(
        self,
        codes: Tensor,
        text: Condition | None,
        seen: Seen | None,
        drop_text: Tensor | None = None,
        drop_video: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, K, T, V) of `codes` as `LM.forward` reads them, conditioned as `condition` does it."""
        return self.lm(codes, self.condition(text, seen, drop_text, drop_video))

    def branches(
        self,
        sampling: SamplingConfig,
        *,
        text: Condition | None = None,
        video: Condition | None = None,
        melody: Condition | None = None,
        without: Condition | None = None,
    ) -> list[Branch]:
        """What is to be decoded side by side for classifier-free guidance: branches whose shares sum to 1.

        With guidance t for text and v for video: (1 − v) · nothing + (v − t) · video + t · all. Branches of share 0
        are left out, so that guidance 1 costs nothing. With learned nulls they take the place of what is not there.

        Args:
            sampling: Holds both weights.
            text, video, melody: Conditions (B, …, D); a melody belongs to the text.
            without: What is led away from, in the place of nothing; a text, and by itself one, too.
        """
        told = any(each is not None for each in (text, melody, without))
        if not told and video is None:  # nothing to be guided by
            return [(1.0, join(_or_null(None, self.null_text, 1), _or_null(None, self.null_video, 1)))]
        t = sampling.cfg_scale
        v = t if video is None or sampling.video_cfg_scale is None else sampling.video_cfg_scale
        t = t if told else v
        if self.config.lm.cross_attention:
            rows = next(len(each.tokens) for each in (text, video, melody, without) if each is not None)
            no_text, words, unwanted = (_or_null(each, self.null_text, rows) for each in (None, text, without))
            no_video, video = (_or_null(each, self.null_video, rows) for each in (None, video))
            nothing, seen, both = join(unwanted, no_video), join(no_text, video), join(melody, words, video)
        else:
            nothing, seen, both = self._in_front(text, video, melody, without)
        found = [(1.0 - v, nothing), (v - t, seen), (t, both)]
        if both is video:  # told by nothing else
            found = [(1.0 - v, nothing), (v, video)]
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


def _dropped(condition: Condition | None, rows: Tensor | None) -> Condition | None:
    """Without any token in those `rows` (B,)."""
    return condition if condition is None or rows is None else condition.without(rows)


def _or_null(condition: Condition | None, null: Tensor | None, rows: int) -> Condition | None:
    """With the learned `null` (1, n, D) in the rows that have no token; as it is where none is learned."""
    if null is None:
        return condition
    lacking = null.new_ones(rows, dtype=torch.bool) if condition is None else ~condition.mask.any(dim=1)
    tokens = null if condition is None else null.to(condition.tokens.dtype)
    return join(condition, Condition(tokens.expand(rows, -1, -1), lacking[:, None].expand(-1, null.shape[1])))


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
