"""Visual conditioners of the music LM: v2m's, whose tokens carry their time, and VidMuse's.

`TemporalConditioner` adds the LM's sinusoidal embedding of the step that sounds when a frame is shown to the frame's
tokens, so that a step can attend to what is shown at its instant. Visual events enter as such tokens, and as a step
bias on the steps that sound then, since attention that is also offered text learns to attend to the text alone. Names
of submodules are names of weights in checkpoints: they stay.

B batch, F short-term frames, G long-term frames, R instants of events, P tokens a frame, W vision dimension, C event
channels, Q pooled tokens a frame, N = R / stride event tokens, S tokens, I inner dimension, D dimension of the LM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.core.timing import seconds_to_frames
from v2m.models.conditioning import Condition, StepBias, concat
from v2m.models.lm import MAX_PERIOD, masked_attention, sinusoidal_embedding

ConditionerKind = Literal["v2m", "vidmuse"]
TimeEncoding = Literal["sinusoidal", "rotary"]
_NOT_SIZES = {"kind", "null_tokens", "time_encoding"}
EVENT_KERNEL = 5  # instants that a convolution over the events spans
NUM_POSITION_WAVES = 4  # waves of a frame's relative position in the video, each twice as fast as the one before


class VisualInputs(NamedTuple):
    """Features of a batch of windows: short-term frames are of the window, long-term ones of the video.

    Times are seconds from the window's start: those of long-term frames may be negative. Masks are True where there is
    a value.
    """

    short_term: Tensor  # (B, F, P, W)
    short_term_times: Tensor  # (B, F)
    short_term_mask: Tensor  # (B, F) bool
    long_term: Tensor  # (B, G, P, W)
    long_term_times: Tensor  # (B, G)
    long_term_mask: Tensor  # (B, G) bool
    events: Tensor  # (B, R, C)
    event_times: Tensor  # (B, R)
    event_mask: Tensor  # (B, R) bool

    def to(self, device: torch.device | str) -> VisualInputs:
        return VisualInputs(*(value.to(device) for value in self))


@dataclass(frozen=True)
class ConditionerConfig:
    """Sizes of a visual conditioner.

    VidMuse's (Tian et al., "VidMuse: A Simple Video-to-Music Generation Framework with Long-Short-Term Modeling",
    2024) are kind "vidmuse", 50 tokens, 16 heads and a feed-forward of 3072, without null tokens.

    Args:
        kind: "v2m" adds time and visual events; "vidmuse" is the published conditioner, without temporal order.
        vision_dim: W, dimension of the vision encoder's tokens.
        num_tokens: P, tokens of the vision encoder for each frame.
        num_layers: v2m: layers across time; vidmuse: layers over a frame's tokens.
        num_heads: Heads of their attentions.
        head_dim: Dimension of one head; v2m's layers have the dimension of all heads together.
        ffn_dim: Dimension inside their feed-forwards.
        null_tokens: Whether missing text and video are learned tokens; else they are left out.
        num_fusion_heads: vidmuse: heads of the attention from short-term to long-term frames.
        num_pooled_tokens: v2m: tokens that a frame is pooled to, if it has more.
        num_event_channels: v2m: channels of the visual events.
        num_event_layers: v2m: convolutions over the events.
        event_stride: v2m: instants that become one token.
        codec_frame_rate: v2m: codec frames per second, the LM's positions.
        time_encoding: v2m: how its layers know when frames are shown. "sinusoidal" is added to the tokens; "rotary"
            turns queries and keys by the times (Su et al., "RoFormer", 2021), so that attention depends on differences.
    """

    kind: ConditionerKind = "v2m"
    vision_dim: int = 768
    num_tokens: int = 5
    num_layers: int = 2
    num_heads: int = 8
    head_dim: int = 64
    ffn_dim: int = 2048
    null_tokens: bool = True
    num_fusion_heads: int = 3
    num_pooled_tokens: int = 4
    num_event_channels: int = 8
    num_event_layers: int = 3
    event_stride: int = 2
    codec_frame_rate: int = 50
    time_encoding: TimeEncoding = "sinusoidal"

    def __post_init__(self) -> None:
        kinds = get_args(ConditionerKind)
        problems = [] if self.kind in kinds else [f"kind {self.kind!r} must be {' or '.join(map(repr, kinds))}"]
        if self.time_encoding not in get_args(TimeEncoding):
            encodings = " or ".join(map(repr, get_args(TimeEncoding)))
            problems.append(f"time_encoding {self.time_encoding!r} must be {encodings}")
        sizes = {name: value for name, value in vars(self).items() if name not in _NOT_SIZES}
        problems += [f"{name} {size} must be 1 or more" for name, size in sizes.items() if size < 1]
        if not problems and self.kind == "vidmuse" and self.vision_dim % self.num_fusion_heads:
            multiple = f"a multiple of the {self.num_fusion_heads} fusion heads"
            problems.append(f"vision_dim {self.vision_dim} must be {multiple}")
        if not problems and self.kind == "v2m" and self.inner_dim % 2:
            problems.append(f"num_heads {self.num_heads} times head_dim {self.head_dim} must be even")
        if not problems and self.time_encoding == "rotary" and self.head_dim % 2:
            problems.append(f"head_dim {self.head_dim} must be even where time_encoding is rotary")
        if problems:
            raise ValueError("conditioner: " + "; ".join(problems))

    @property
    def inner_dim(self) -> int:
        """I, the dimension of all heads together."""
        return self.num_heads * self.head_dim


class VidMuseConditioner(nn.Module):
    """VidMuse's conditioner: a transformer over each frame's tokens, then attention to long-term frames.

    As published: positions are those within a frame, so nothing depends on when a frame is shown.
    """

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        self.near, self.whole = FrameTransformer(config), FrameTransformer(config)
        self.fusion = LongShortTermFusion(config.vision_dim, config.num_fusion_heads)
        self.out = nn.Linear(config.vision_dim, dim)

    def forward(self, visual: VisualInputs) -> Condition:
        """Return (B, F · P, D) for the window's frames; events and times are ignored."""
        dtype, num_tokens = self.out.weight.dtype, visual.short_term.shape[2]
        short_term, long_term = self.near(visual.short_term.to(dtype)), self.whole(visual.long_term.to(dtype))
        short_term_mask = visual.short_term_mask.repeat_interleave(num_tokens, 1)
        long_term_mask = visual.long_term_mask.repeat_interleave(num_tokens, 1)
        fused = self.fusion(short_term, long_term, long_term_mask)
        return Condition(self.out(fused) * short_term_mask[..., None], short_term_mask)


class FrameTransformer(nn.Module):
    """A transformer over the tokens of one frame, normed before each step and at the end."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, config.num_tokens, config.vision_dim))
        self.layers = nn.ModuleList(FrameTransformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.vision_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, P, W) → (B, F · P, W)."""
        x = frames.flatten(0, 1) + self.positions  # (B · F, P, W)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).unflatten(0, frames.shape[:2]).flatten(1, 2)


class FrameTransformerLayer(nn.Module):
    """Self-attention and feed-forward; each normed before and added after."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        dim, inner_dim = config.vision_dim, config.inner_dim
        self.num_heads = config.num_heads
        self.norm_attention = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * inner_dim, bias=False)
        self.out = nn.Linear(inner_dim, dim)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, config.ffn_dim)
        self.contract = nn.Linear(config.ffn_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, W) → (B, P, W)."""
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        x = x + self.out(masked_attention(query, key, value, self.num_heads))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class LongShortTermFusion(nn.Module):
    """Attention from the short-term frames' tokens to the long-term ones'; normed after each step."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.norm_attention = nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.mix.weight)  # starts as the identity, as published
        nn.init.zeros_(self.mix.bias)

    def forward(self, short_term: Tensor, long_term: Tensor, long_term_mask: Tensor | None = None) -> Tensor:
        """(B, S, W) and (B, S', W) with a mask (B, S') → (B, S, W)."""
        key, value = self.key(long_term), self.value(long_term)
        fused = masked_attention(self.query(short_term), key, value, self.num_heads, long_term_mask)
        x = self.norm_attention(fused + short_term)
        return self.norm(self.mix(x) + x)


class TemporalConditioner(nn.Module):
    """Short-term frames attend to each other and to the long-term ones; event tokens stand beside them."""

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        inner_dim, self.codec_frame_rate = config.inner_dim, config.codec_frame_rate
        self.rotary_dim = config.head_dim if config.time_encoding == "rotary" else None
        self.pool = TokenPooling(config)
        self.story = nn.Linear(2 * NUM_POSITION_WAVES, inner_dim)  # of the relative position in the video
        self.near, self.whole = (nn.Parameter(0.5 * torch.randn(inner_dim)) for _ in range(2))
        self.layers = nn.ModuleList(TemporalLayer(config) for _ in range(config.num_layers))
        self.out, self.norm = nn.Linear(inner_dim, dim), nn.LayerNorm(dim)
        self.rhythm = EventEncoder(config, dim)

    def forward(self, visual: VisualInputs) -> Condition:
        """Return (B, F · Q + N, D) of the window's frames and events, with a step bias at each of R instants."""
        x, mask = self._with_time(*visual[:3], visual)
        long_term, long_term_mask = self._with_time(*visual[3:6], visual)
        x, long_term = x + self.near, long_term + self.whole
        rotations = None
        if self.rotary_dim is not None:
            rotations = self._rotation(visual.short_term_times), self._rotation(visual.long_term_times)
        for layer in self.layers:
            x = layer(x, mask, long_term, long_term_mask, rotations)
        x = self.norm(self.out(x))
        x = x + self._time_embedding(visual.short_term_times, x).repeat_interleave(self.pool.num_tokens, 1)
        frames = Condition(x * mask[..., None], mask)
        encoded = self.rhythm.encode(visual.events, visual.event_mask)
        tokens, times, token_mask = self.rhythm(encoded, visual.event_times, visual.event_mask)
        positions = seconds_to_frames(visual.event_times.float(), self.codec_frame_rate)
        step_bias = StepBias(self.rhythm.cue(encoded), positions, visual.event_mask)
        tokens = (tokens + self._time_embedding(times, tokens)) * token_mask[..., None]
        condition = concat(frames, Condition(tokens, token_mask, step_bias))
        assert condition is not None
        return condition

    def _with_time(self, frames: Tensor, times: Tensor, mask: Tensor, visual: VisualInputs) -> tuple[Tensor, Tensor]:
        """(B, F, P, W) → tokens (B, F · Q, I) with their time and place in the video, and their mask."""
        x = self.pool(frames.masked_fill(~mask[..., None, None], 0.0))  # (B, F, Q, I)
        time = self.story(_relative_position(times, visual).to(x.dtype))
        time = time if self.rotary_dim is not None else time + self._time_embedding(times, x)
        return (x + time[:, :, None]).flatten(1, 2), mask.repeat_interleave(self.pool.num_tokens, 1)

    def _rotation(self, times: Tensor) -> Tensor:
        """Seconds (B, F) → unit complex numbers (B, 1, F · Q, half a head's dimension), for `_rotate`."""
        assert self.rotary_dim is not None, "time is not rotary"
        positions = seconds_to_frames(times.float(), self.codec_frame_rate).repeat_interleave(self.pool.num_tokens, 1)
        exponents = torch.arange(0, self.rotary_dim, 2, device=times.device) / self.rotary_dim
        angles = positions[:, None, :, None] * MAX_PERIOD**-exponents
        return torch.polar(torch.ones_like(angles), angles)

    def _time_embedding(self, times: Tensor, like: Tensor) -> Tensor:
        """Seconds (B, S) → (B, S, dimension of `like`): the LM's embedding of the codec frame of that instant."""
        positions = seconds_to_frames(times.float(), self.codec_frame_rate)
        embedding = sinusoidal_embedding(positions.flatten(), like.shape[-1])
        return embedding.unflatten(0, positions.shape).to(like.dtype)


class TokenPooling(nn.Module):
    """A frame's tokens, projected to the inner dimension, and pooled by attention if there are many."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        inner_dim, self.num_heads = config.inner_dim, config.num_heads
        self.norm, self.lead = nn.LayerNorm(config.vision_dim), nn.Linear(config.vision_dim, inner_dim)
        self.places = nn.Parameter(0.5 * torch.randn(config.num_tokens, inner_dim))
        self.num_tokens = min(config.num_tokens, config.num_pooled_tokens)  # Q
        self.query = self.key_value = None
        if config.num_tokens > config.num_pooled_tokens:
            self.query = nn.Parameter(torch.randn(config.num_pooled_tokens, inner_dim))
            self.key_value = nn.Linear(inner_dim, 2 * inner_dim, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, P, W) → (B, F, Q, I)."""
        x = self.lead(self.norm(frames.to(self.lead.weight.dtype))) + self.places
        if self.query is None or self.key_value is None:
            return x
        flat = x.flatten(0, 1)  # (B · F, P, I)
        key, value = self.key_value(flat).chunk(2, dim=-1)
        query = self.query.to(key.dtype).expand(len(flat), -1, -1)
        return masked_attention(query, key, value, self.num_heads).unflatten(0, x.shape[:2])


class TemporalLayer(nn.Module):
    """Attention among short-term tokens, attention to long-term ones, feed-forward; each normed before."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        dim, self.num_heads = config.inner_dim, config.num_heads
        self.norm_own, self.norm_whole, self.norm_feedforward = (nn.LayerNorm(dim) for _ in range(3))
        self.query_key_value, self.own = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.query, self.key_value = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.found = nn.Linear(dim, dim)
        self.expand, self.contract = nn.Linear(dim, config.ffn_dim), nn.Linear(config.ffn_dim, dim)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        long_term: Tensor,
        long_term_mask: Tensor,
        rotations: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, S, I) with `mask` (B, S), and long-term (B, S', I) with its mask (B, S') → (B, S, I).

        `rotations` are those of both times, where time is rotary.
        """
        query, key, value = self.query_key_value(self.norm_own(x)).chunk(3, dim=-1)
        if rotations is not None:
            query, key = _rotate(query, rotations[0], self.num_heads), _rotate(key, rotations[0], self.num_heads)
        x = x + self.own(masked_attention(query, key, value, self.num_heads, mask))
        key, value = self.key_value(long_term).chunk(2, dim=-1)
        query = self.query(self.norm_whole(x))
        if rotations is not None:
            query, key = _rotate(query, rotations[0], self.num_heads), _rotate(key, rotations[1], self.num_heads)
        x = x + self.found(masked_attention(query, key, value, self.num_heads, long_term_mask))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class EventEncoder(nn.Module):
    """Convolutions over the events' channels, then a token for every few instants."""

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        inner_dim, self.stride = config.inner_dim, config.event_stride
        channels = [config.num_event_channels, *[inner_dim] * config.num_event_layers]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, EVENT_KERNEL, padding=EVENT_KERNEL // 2) for before, after in pairwise(channels)
        )
        self.out, self.norm = nn.Linear(self.stride * inner_dim, dim), nn.LayerNorm(dim)
        self.stream = nn.Parameter(0.5 * torch.randn(dim))  # distinguishes event tokens from frame tokens
        self.cue = nn.Linear(inner_dim, dim, bias=False)  # step bias
        nn.init.zeros_(self.cue.weight)  # an LM that was trained before starts with the inputs it was trained on

    def encode(self, events: Tensor, mask: Tensor) -> Tensor:
        """(B, R, C) with `mask` (B, R) → (B, R, I), each instant with those around it."""
        x = events.masked_fill(~mask[..., None], 0.0).to(self.out.weight.dtype).mT  # (B, C, R)
        for n, layer in enumerate(self.layers):
            inner = functional.gelu(layer(x)) * mask[:, None]
            x = x + inner if n else inner
        return x.mT

    def forward(self, encoded: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, R, I), (B, R) and (B, R) → tokens (B, N, D) without their time, their times and mask (B, N).

        A token's time is the mean of its valid instants'.
        """
        rest = -encoded.shape[1] % self.stride
        mask = functional.pad(mask, (0, rest))
        x = functional.pad(encoded, (0, 0, 0, rest))
        tokens = self.norm(self.out(x.unflatten(1, (-1, self.stride)).flatten(2))) + self.stream
        weights = mask.unflatten(1, (-1, self.stride)).float()  # (B, N, stride)
        times = functional.pad(times.float(), (0, rest)).unflatten(1, (-1, self.stride))
        mean_times = (times * weights).sum(-1) / weights.sum(-1).clamp(min=1)
        return tokens, mean_times, weights.any(-1)


def _rotate(x: Tensor, rotation: Tensor, num_heads: int) -> Tensor:
    """Rotate pairs of dimensions of each head of `x` (B, S, I).

    `rotation` are unit complex numbers (B, 1, S, half a head's dimension).
    """
    heads = x.float().unflatten(-1, (num_heads, -1, 2)).transpose(1, 2)  # (B, H, S, half, 2)
    rotated = torch.view_as_real(torch.view_as_complex(heads.contiguous()) * rotation)
    return rotated.transpose(1, 2).flatten(2).to(x.dtype)


def _relative_position(times: Tensor, visual: VisualInputs) -> Tensor:
    """Waves (B, F, 2 · `NUM_POSITION_WAVES`) of the relative position of `times` (B, F) in the video.

    From the first to the last long-term frame; the middle, where no more than one of these is valid.
    """
    long_term_times, mask = visual.long_term_times.float(), visual.long_term_mask
    first = long_term_times.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
    span = long_term_times.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True) - first
    fraction = torch.where(span > 0, (times.float() - first) / span, 0.5).clamp(-1, 2)
    angles = fraction[..., None] * math.pi * 2.0 ** torch.arange(NUM_POSITION_WAVES, device=times.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
