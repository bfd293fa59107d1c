"""Everything that learns, as one module: the music LM, and projections and conditioners of its inputs.

No files, no frozen encoders. B batch, L text tokens, C chroma frames, S condition tokens, D model dimension of the LM,
K codebooks, T steps, V codebook size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch, Condition, concat
from v2m.models.lm import LM, LMConfig
from v2m.models.style_conditioner import StyleConditioner, StyleConfig
from v2m.models.visual_conditioner import ConditionerConfig, TemporalConditioner, VidMuseConditioner, VisualInputs

NUM_NULL_TOKENS = 4  # learned tokens that stand for a missing text, and for a missing video
NULL_INIT_STD = 0.02  # of their initial values; around 0, with which MusicGen was trained for a missing text


@dataclass(frozen=True)
class MusicConfig:
    """Sizes of everything that learns.

    Args:
        lm: Of the language model.
        text_dim: Dimension of the text encoder's tokens; None for a model without text.
        num_chroma: Pitch classes of a melody, for models that follow one.
        conditioner: Of the visual conditioner, for models that have one.
        style: Of the style conditioner, for models that have one.
        segment_duration: Seconds of music that the model was trained on.
    """

    lm: LMConfig = field(default_factory=LMConfig)
    text_dim: int | None = 768
    num_chroma: int | None = None
    conditioner: ConditionerConfig | None = None
    segment_duration: float = 30.0
    style: StyleConfig | None = None

    def __post_init__(self) -> None:
        if self.style is not None and (self.lm.cross_attention or self.num_chroma is not None):
            raise ValueError("style: the language model reads it as a prefix, without cross_attention and melody")
        if self.has_null_tokens and not self.lm.cross_attention:
            raise ValueError("conditioner: null_tokens need a language model with cross_attention alone")

    @property
    def has_null_tokens(self) -> bool:
        """True if missing text and video are learned tokens."""
        return self.conditioner is not None and self.conditioner.null_tokens

    @property
    def uses_text(self) -> bool:
        """True if text conditions the LM; VidMuse's checkpoint contains a text projection that is unused."""
        published = self.conditioner is not None and self.conditioner.kind == "vidmuse" and not self.has_null_tokens
        return self.text_dim is not None and not published

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MusicConfig:
        """Make a config of YAML values; raise ValueError or TypeError for what no model can have."""
        conditioner = values.get("conditioner")
        conditioner = None if conditioner is None else ConditionerConfig(**conditioner)
        style = None if values.get("style") is None else StyleConfig(**values["style"])
        lm = LMConfig(**values.get("lm") or {})
        return cls(**{**values, "lm": lm, "conditioner": conditioner, "style": style})

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings and lists only."""
        values = asdict(self)
        values["lm"]["delays"] = None if self.lm.delays is None else list(self.lm.delays)
        return values


class MusicModel(nn.Module):
    """The language model `lm`, and the layers that bring text, melody, style and video to its dimension."""

    def __init__(self, config: MusicConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.lm.dim
        self.lm = LM(config.lm)
        self.text = None if config.text_dim is None else nn.Linear(config.text_dim, dim)
        self.chroma = None if config.num_chroma is None else nn.Linear(config.num_chroma, dim)
        self.style = None if config.style is None else StyleConditioner(config.style, dim)
        self.conditioner: VidMuseConditioner | TemporalConditioner | None = None
        if config.conditioner is not None:
            kind = TemporalConditioner if config.conditioner.kind == "v2m" else VidMuseConditioner
            self.conditioner = kind(config.conditioner, dim)

        def null_tokens(learned: bool) -> nn.Parameter | None:
            return nn.Parameter(NULL_INIT_STD * torch.randn(1, NUM_NULL_TOKENS, dim)) if learned else None

        self.null_text = null_tokens(config.has_null_tokens and config.uses_text)
        self.null_video = null_tokens(config.has_null_tokens)

    def project_text(self, text: Condition) -> Condition:
        """Project text tokens (B, L, `config.text_dim`) to (B, L, D), 0 where a token is not valid."""
        assert self.text is not None, "this model has no text projection"
        tokens = self.text(text.tokens.to(self.text.weight.dtype))
        return Condition(tokens * text.mask[..., None], text.mask)

    def project_melody(self, chroma: Tensor) -> Condition:
        """Project a melody's chroma (B, C, `config.num_chroma`) to (B, C, D)."""
        assert self.chroma is not None, "this model follows no melody"
        return Condition.from_tokens(self.chroma(chroma.to(self.chroma.weight.dtype)))

    def null_style(self) -> Condition:
        """Return the style (1, 1, D) that stands for no excerpt."""
        assert self.config.style is not None, "this model has no style conditioner"
        return Condition.from_tokens(next(self.parameters()).new_zeros(1, 1, self.config.lm.dim))

    def encode_video(self, visual: VisualInputs) -> Condition:
        assert self.conditioner is not None, "this model has no visual conditioner"
        return self.conditioner(visual)

    def build_condition(
        self,
        text: Condition | None,
        visual: VisualInputs | None,
        drop_text: Tensor | None = None,
        drop_video: Tensor | None = None,
    ) -> Condition | None:
        """Return the condition of a training batch: text and video, as far as the model has inputs for them.

        `text` is (B, L, `config.text_dim`). Rows in `drop_text` and `drop_video`, (B,) bool, lose theirs: null tokens,
        where there are some, take its place.
        """
        text = self.project_text(text) if text is not None and self.config.uses_text else None
        video = self.encode_video(visual) if visual is not None and self.conditioner is not None else None
        rows = next((len(part.tokens) for part in (text, video) if part is not None), 1)
        text, video = _drop_rows(text, drop_text), _drop_rows(video, drop_video)
        return concat(_with_null(text, self.null_text, rows), _with_null(video, self.null_video, rows))

    def forward(
        self,
        codes: Tensor,
        text: Condition | None,
        visual: VisualInputs | None,
        drop_text: Tensor | None = None,
        drop_video: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, K, T, V) of `codes` as in `LM.forward`, conditioned as in `build_condition`."""
        return self.lm(codes, self.build_condition(text, visual, drop_text, drop_video))

    def cfg_branches(
        self,
        sampling: SamplingConfig,
        *,
        text: Condition | None = None,
        video: Condition | None = None,
        melody: Condition | None = None,
        negative: Condition | None = None,
        style: Condition | None = None,
    ) -> list[CFGBranch]:
        """Return the branches of classifier-free guidance, decoded side by side; their weights sum to 1.

        With guidance scales t for text and v for video, the guided logits are

            (1 − v) · logits(nothing) + (v − t) · logits(video) + t · logits(video, text, melody)

        Branches of weight 0 are left out. Null tokens, where learned, stand in for what is missing. All conditions are
        (B, …, D); `melody` counts as text, and so does `negative`, a negative prompt in the place of nothing.

        A model with a style conditioner needs a `style`: an excerpt's tokens, or one of zeros for none. It takes the
        place of the video, v = `cfg_scale` and t = v · `cfg_beta`: the double guidance of Rouard et al. (2024),
        section 4.3, multiplied out.
        """
        guided_by_text = any(part is not None for part in (text, melody, negative))
        if not guided_by_text and video is None and style is None:  # nothing to guide with
            null = concat(_with_null(None, self.null_text, 1), _with_null(None, self.null_video, 1))
            return [CFGBranch(1.0, null)]
        t = sampling.cfg_scale
        v = t if video is None or sampling.video_cfg_scale is None else sampling.video_cfg_scale
        if style is not None and sampling.cfg_beta is not None:
            t = v * sampling.cfg_beta
        t = t if guided_by_text else v
        if self.config.lm.cross_attention:
            rows = next(len(part.tokens) for part in (text, video, melody, negative) if part is not None)
            no_text, text, negative = (_with_null(part, self.null_text, rows) for part in (None, text, negative))
            no_video, video = (_with_null(part, self.null_video, rows) for part in (None, video))
            uncond, partial, full = concat(negative, no_video), concat(no_text, video), concat(melody, text, video)
        else:
            uncond, partial, full = self._prefix_branches(text, video, melody, negative, style)
        branches = [CFGBranch(1.0 - v, uncond), CFGBranch(v - t, partial), CFGBranch(t, full)]
        if full is video:  # there is no other condition
            branches = [CFGBranch(1.0 - v, uncond), CFGBranch(v, video)]
        return [branch for branch in branches if branch.weight != 0]

    def _prefix_branches(
        self,
        text: Condition | None,
        video: Condition | None,
        melody: Condition | None,
        negative: Condition | None,
        style: Condition | None,
    ) -> tuple[Condition | None, Condition | None, Condition | None]:
        """Return nothing, the video or style, and all, as prefixes of one length.

        So the codes have the same positions in each. Missing text, video and style are zeros, a missing melody is the
        chroma of silence, as in transformers. Where there may be a style, no text at all is one zero, as in audiocraft.
        """
        silence = None
        if melody is not None:
            assert self.config.num_chroma is not None, "this model follows no melody"
            chroma = torch.zeros(self.config.num_chroma, device=melody.tokens.device)
            chroma[0] = 1
            silence = self.project_melody(chroma.expand(*melody.tokens.shape[:2], -1))
        shortest = 0 if style is None else 1
        length = max((part.tokens.shape[1] for part in (text, negative) if part is not None), default=shortest)
        like = next(part.tokens for part in (text, negative, melody, video, style) if part is not None)
        no_style = None if style is None else _zero_condition(like, style.tokens.shape[1])
        no_text = _zero_condition(like, length)
        no_video = None if video is None else _zero_condition(like, video.tokens.shape[1])
        text, negative = _pad_with(text, no_text), _pad_with(negative, no_text)
        return (
            concat(no_style, silence, negative, no_video),
            concat(style, silence, no_text, video),
            concat(style, melody, text, video),
        )


def _drop_rows(condition: Condition | None, rows: Tensor | None) -> Condition | None:
    return condition if condition is None or rows is None else condition.drop(rows)


def _with_null(condition: Condition | None, null: Tensor | None, rows: int) -> Condition | None:
    """Put the learned `null` (1, n, D) into rows without a valid token; unchanged where none is learned."""
    if null is None:
        return condition
    empty = null.new_ones(rows, dtype=torch.bool) if condition is None else ~condition.mask.any(dim=1)
    tokens = null if condition is None else null.to(condition.tokens.dtype)
    return concat(condition, Condition(tokens.expand(rows, -1, -1), empty[:, None].expand(-1, null.shape[1])))


def _zero_condition(like: Tensor, length: int) -> Condition:
    return Condition.from_tokens(like.new_zeros(like.shape[0], length, like.shape[2]))


def _pad_with(condition: Condition | None, zeros: Condition) -> Condition:
    """Pad to the length of `zeros`, with them."""
    if condition is None:
        return zeros
    length = condition.tokens.shape[1]
    padded = concat(condition, Condition(zeros.tokens[:, length:], zeros.mask[:, length:]))
    assert padded is not None
    return padded
