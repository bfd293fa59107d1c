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
from v2m.models.conditioning import Condition, concat
from v2m.models.lm import LM, LMConfig
from v2m.models.visual.inputs import VisualInputs
from v2m.models.visual.temporal import TemporalConditioner
from v2m.models.visual.vidmuse import ConditionerConfig, VidMuseConditioner

CFGBranch = tuple[float, Condition | None]  # a share of the guided logits, and what they are conditioned on
NUM_NULL_TOKENS = 4  # tokens of what stands for no text, and for no video
NULL_INIT_STD = 0.02  # how far from 0 they begin: 0 is what MusicGen was trained on


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
    text_dim: int | None = 768
    num_chroma: int | None = None
    conditioner: ConditionerConfig | None = None
    segment_duration: float = 30.0

    def __post_init__(self) -> None:
        if self.has_null_tokens and not self.lm.cross_attention:
            raise ValueError("conditioner: nulls are learned where the language model has cross_attention alone")

    @property
    def has_null_tokens(self) -> bool:
        """Whether what stands for no text and no video is learned."""
        return self.conditioner is not None and self.conditioner.null_tokens

    @property
    def uses_text(self) -> bool:
        """VidMuse as published has a projection of text that nothing was ever led through."""
        published = self.conditioner is not None and self.conditioner.kind == "vidmuse" and not self.has_null_tokens
        return self.text_dim is not None and not published

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MusicConfig:
        """From what a YAML holds; the opposite of `plain`.

        Raises:
            ValueError, TypeError: A setting is unknown or none that makes a model.
        """
        given = dict(values)
        seen = given.get("conditioner")
        given["lm"] = LMConfig(**given.get("lm") or {})
        given["conditioner"] = None if seen is None else ConditionerConfig(**seen)
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only."""
        found = asdict(self)
        found["lm"]["delays"] = None if self.lm.delays is None else list(self.lm.delays)
        return found


class MusicModel(nn.Module):
    """The language model `lm`, and the layers that bring text, melody and video to its width."""

    def __init__(self, config: MusicConfig) -> None:
        super().__init__()
        self.config = config
        width = config.lm.dim
        self.lm = LM(config.lm)
        self.text = None if config.text_dim is None else nn.Linear(config.text_dim, width)
        self.chroma = None if config.num_chroma is None else nn.Linear(config.num_chroma, width)
        self.conditioner: VidMuseConditioner | TemporalConditioner | None = None
        if config.conditioner is not None:
            shape = TemporalConditioner if config.conditioner.kind == "v2m" else VidMuseConditioner
            self.conditioner = shape(config.conditioner, width)
        nulls = (config.has_null_tokens and config.uses_text, config.has_null_tokens)
        self.null_text, self.null_video = (
            nn.Parameter(NULL_INIT_STD * torch.randn(1, NUM_NULL_TOKENS, width)) if learned else None
            for learned in nulls
        )

    def project_text(self, text: Condition) -> Condition:
        """What the text encoder gives, (B, L, `config.text`) → (B, L, D), 0 where there is no token."""
        assert self.text is not None, "this model reads no text"
        tokens = self.text(text.tokens.to(self.text.weight.dtype))
        return Condition(tokens * text.mask[..., None], text.mask)

    def project_melody(self, chroma: Tensor) -> Condition:
        """A melody's chroma (B, C, `config.chroma`) → (B, C, D)."""
        assert self.chroma is not None, "this model follows no melody"
        return Condition.from_tokens(self.chroma(chroma.to(self.chroma.weight.dtype)))

    def encode_video(self, visual: VisualInputs) -> Condition:
        """What is shown of a video → (B, S, D)."""
        assert self.conditioner is not None, "this model does not see"
        return self.conditioner(visual)

    def build_condition(
        self,
        text: Condition | None,
        visual: VisualInputs | None,
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
        read = self.project_text(text) if text is not None and self.config.uses_text else None
        shown = self.encode_video(visual) if visual is not None and self.conditioner is not None else None
        rows = next((len(each.tokens) for each in (read, shown) if each is not None), 1)
        read, shown = _drop_rows(read, drop_text), _drop_rows(shown, drop_video)
        return concat(_with_null(read, self.null_text, rows), _with_null(shown, self.null_video, rows))

    def forward(
        self,
        codes: Tensor,
        text: Condition | None,
        visual: VisualInputs | None,
        drop_text: Tensor | None = None,
        drop_video: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, K, T, V) of `codes` as `LM.forward` reads them, conditioned as `condition` does it."""
        return self.lm(codes, self.build_condition(text, visual, drop_text, drop_video))

    def cfg_branches(
        self,
        sampling: SamplingConfig,
        *,
        text: Condition | None = None,
        video: Condition | None = None,
        melody: Condition | None = None,
        negative: Condition | None = None,
    ) -> list[CFGBranch]:
        """What is to be decoded side by side for classifier-free guidance: branches whose shares sum to 1.

        With guidance t for text and v for video: (1 − v) · nothing + (v − t) · video + t · all. Branches of share 0
        are left out, so that guidance 1 costs nothing. With learned nulls they take the place of what is not there.

        Args:
            sampling: Holds both weights.
            text, video, melody: Conditions (B, …, D); a melody belongs to the text.
            without: What is led away from, in the place of nothing; a text, and by itself one, too.
        """
        told = any(each is not None for each in (text, melody, negative))
        if not told and video is None:  # nothing to be guided by
            return [(1.0, concat(_with_null(None, self.null_text, 1), _with_null(None, self.null_video, 1)))]
        t = sampling.cfg_scale
        v = t if video is None or sampling.video_cfg_scale is None else sampling.video_cfg_scale
        t = t if told else v
        if self.config.lm.cross_attention:
            rows = next(len(each.tokens) for each in (text, video, melody, negative) if each is not None)
            no_text, words, unwanted = (_with_null(each, self.null_text, rows) for each in (None, text, negative))
            no_video, video = (_with_null(each, self.null_video, rows) for each in (None, video))
            nothing, seen, both = concat(unwanted, no_video), concat(no_text, video), concat(melody, words, video)
        else:
            nothing, seen, both = self._prefix_branches(text, video, melody, negative)
        found = [(1.0 - v, nothing), (v - t, seen), (t, both)]
        if both is video:  # told by nothing else
            found = [(1.0 - v, nothing), (v, video)]
        return [(share, condition) for share, condition in found if share != 0]

    def _prefix_branches(
        self, text: Condition | None, video: Condition | None, melody: Condition | None, negative: Condition | None
    ) -> tuple[Condition | None, Condition | None, Condition | None]:
        """Nothing, the video and all as what stands before the codes, whose places must be the same in each: zeros for
        a text or video that is not there, the chroma of silence for a melody, as in transformers."""
        silent = None
        if melody is not None:
            assert self.config.num_chroma is not None, "this model follows no melody"
            first = torch.zeros(self.config.num_chroma, device=melody.tokens.device)
            first[0] = 1
            silent = self.project_melody(first.expand(*melody.tokens.shape[:2], -1))
        length = max((each.tokens.shape[1] for each in (text, negative) if each is not None), default=0)
        like = next(each.tokens for each in (text, negative, melody, video) if each is not None)
        no_text, no_video = (
            _zero_condition(like, length),
            None if video is None else _zero_condition(like, video.tokens.shape[1]),
        )
        text, negative = _pad_with(text, no_text), _pad_with(negative, no_text)
        return concat(silent, negative, no_video), concat(silent, no_text, video), concat(melody, text, video)


def _drop_rows(condition: Condition | None, rows: Tensor | None) -> Condition | None:
    """Without any token in those `rows` (B,)."""
    return condition if condition is None or rows is None else condition.drop(rows)


def _with_null(condition: Condition | None, null: Tensor | None, rows: int) -> Condition | None:
    """With the learned `null` (1, n, D) in the rows that have no token; as it is where none is learned."""
    if null is None:
        return condition
    lacking = null.new_ones(rows, dtype=torch.bool) if condition is None else ~condition.mask.any(dim=1)
    tokens = null if condition is None else null.to(condition.tokens.dtype)
    return concat(condition, Condition(tokens.expand(rows, -1, -1), lacking[:, None].expand(-1, null.shape[1])))


def _zero_condition(like: Tensor, length: int) -> Condition:
    return Condition.from_tokens(like.new_zeros(like.shape[0], length, like.shape[2]))


def _pad_with(condition: Condition | None, zeros: Condition) -> Condition:
    """As long as `zeros`, with them at its end."""
    if condition is None:
        return zeros
    rest = condition.tokens.shape[1]
    joined = concat(condition, Condition(zeros.tokens[:, rest:], zeros.mask[:, rest:]))
    assert joined is not None
    return joined
