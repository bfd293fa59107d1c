"""A visual conditioner that knows the time: each token says when, on the clock that the language model counts by.

The language model adds waves of its step's number to what it reads. The same waves, at the step that sounds when a
frame is shown, are added to the frame's tokens here, so that a step finds what is seen at its instant. The rhythm is
told twice: as such tokens, and as cues that are added to the very steps that sound then, for attention that is also
offered text learns to look at the text alone.

B batch, F frames, P tokens a frame, W their width, Q pooled tokens a frame, S tokens, R instants of rhythm, C what is
measured at each, N = R / stride of its tokens, I width inside, D width of the language model.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.core.timing import place_at
from v2m.models.conditioning import Condition, StepBias, concat
from v2m.models.lm import sinusoidal_embedding
from v2m.models.visual.inputs import VisualInputs
from v2m.models.visual.vidmuse import ConditionerConfig, masked_attention

EVENT_KERNEL = 5  # instants of rhythm that a convolution spans
NUM_POSITION_WAVES = 4  # that say where in the video a frame is, each twice as fast as the one before


class TemporalConditioner(nn.Module):
    """Near frames look at each other, across time, and at the whole video; the rhythm is told beside them."""

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        inner, self.codec_frame_rate = config.inner_dim, config.codec_frame_rate
        self.pool = TokenPooling(config)
        self.story = nn.Linear(2 * NUM_POSITION_WAVES, inner)
        self.near, self.whole = (nn.Parameter(0.5 * torch.randn(inner)) for _ in range(2))
        self.layers = nn.ModuleList(TemporalLayer(config) for _ in range(config.num_layers))
        self.out, self.norm = nn.Linear(inner, dim), nn.LayerNorm(dim)
        self.rhythm = EventEncoder(config, dim)

    def forward(self, visual: VisualInputs) -> Condition:
        """(B, F · Q + N, D): of the window's frames, then of its rhythm; and a cue for each of its R instants."""
        near, near_mask = self._with_time(visual.short_term, visual.short_term_times, visual.short_term_mask, visual)
        whole, whole_mask = self._with_time(visual.long_term, visual.long_term_times, visual.long_term_mask, visual)
        x, whole = near + self.near, whole + self.whole
        for layer in self.layers:
            x = layer(x, near_mask, whole, whole_mask)
        x = self.norm(self.out(x))
        x = x + self._time_embedding(visual.short_term_times, x).repeat_interleave(self.pool.num_tokens, 1)
        felt = self.rhythm.encode(visual.events, visual.event_mask)
        beats, times, mask = self.rhythm(felt, visual.event_times, visual.event_mask)
        cues = StepBias(
            self.rhythm.cue(felt), place_at(visual.event_times.float(), self.codec_frame_rate), visual.event_mask
        )
        frames = Condition(x * near_mask[..., None], near_mask)
        joined = concat(frames, Condition((beats + self._time_embedding(times, beats)) * mask[..., None], mask, cues))
        assert joined is not None
        return joined

    def _with_time(self, frames: Tensor, times: Tensor, mask: Tensor, seen: VisualInputs) -> tuple[Tensor, Tensor]:
        """Tokens (B, F, P, W) → (B, F · Q, I) that say when and where in the video they are, and which are there."""
        x = self.pool(frames.masked_fill(~mask[..., None, None], 0.0))  # (B, F, Q, I)
        told = self._time_embedding(times, x) + self.story(_relative_position(times, seen).to(x.dtype))
        return (x + told[:, :, None]).flatten(1, 2), mask.repeat_interleave(self.pool.num_tokens, 1)

    def _time_embedding(self, times: Tensor, like: Tensor) -> Tensor:
        """Seconds (B, S) → (B, S, width of `like`): the language model's waves at the codec frame of that instant."""
        places = place_at(times.float(), self.codec_frame_rate)
        return sinusoidal_embedding(places.flatten(), like.shape[-1]).unflatten(0, places.shape).to(like.dtype)


class TokenPooling(nn.Module):
    """A frame's tokens, brought to the width inside, and to few if there are many."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        inner, self.heads = config.inner_dim, config.num_heads
        self.norm, self.lead = nn.LayerNorm(config.vision_dim), nn.Linear(config.vision_dim, inner)
        self.places = nn.Parameter(0.5 * torch.randn(config.num_tokens, inner))
        self.num_tokens = min(config.num_tokens, config.num_pooled_tokens)  # Q
        self.query = self.key_value = None
        if config.num_tokens > config.num_pooled_tokens:
            self.query = nn.Parameter(torch.randn(config.num_pooled_tokens, inner))
            self.key_value = nn.Linear(inner, 2 * inner, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, P, W) → (B, F, Q, I)."""
        x = self.lead(self.norm(frames.to(self.lead.weight.dtype))) + self.places
        if self.query is None or self.key_value is None:
            return x
        flat = x.flatten(0, 1)  # (B · F, P, I)
        key, value = self.key_value(flat).chunk(2, dim=-1)
        query = self.query.to(key.dtype).expand(len(flat), -1, -1)
        return masked_attention(query, key, value, self.heads).unflatten(0, x.shape[:2])


class TemporalLayer(nn.Module):
    """Attention among the near tokens, attention to the whole video's, feed-forward; each normed before."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        inner, self.heads = config.inner_dim, config.num_heads
        self.norm_own, self.norm_whole, self.norm_feedforward = (nn.LayerNorm(inner) for _ in range(3))
        self.query_key_value, self.own = nn.Linear(inner, 3 * inner, bias=False), nn.Linear(inner, inner)
        self.query, self.key_value = nn.Linear(inner, inner, bias=False), nn.Linear(inner, 2 * inner, bias=False)
        self.found = nn.Linear(inner, inner)
        self.expand, self.contract = nn.Linear(inner, config.ffn_dim), nn.Linear(config.ffn_dim, inner)

    def forward(self, x: Tensor, there: Tensor, whole: Tensor, whole_there: Tensor) -> Tensor:
        """(B, S, I), of which those of `there` (B, S) are, and the whole video's (B, S', I) likewise → (B, S, I)."""
        query, key, value = self.query_key_value(self.norm_own(x)).chunk(3, dim=-1)
        x = x + self.own(masked_attention(query, key, value, self.heads, there))
        key, value = self.key_value(whole).chunk(2, dim=-1)
        query = self.query(self.norm_whole(x))
        x = x + self.found(masked_attention(query, key, value, self.heads, whole_there))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class EventEncoder(nn.Module):
    """Convolutions over what is measured many times a second, then a token for every few instants."""

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        inner, self.stride = config.inner_dim, config.event_stride
        widths = [config.num_event_channels, *[inner] * config.num_event_layers]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, EVENT_KERNEL, padding=EVENT_KERNEL // 2) for before, after in pairwise(widths)
        )
        self.out, self.norm = nn.Linear(self.stride * inner, dim), nn.LayerNorm(dim)
        self.stream = nn.Parameter(0.5 * torch.randn(dim))
        self.cue = nn.Linear(inner, dim, bias=False)
        nn.init.zeros_(self.cue.weight)  # a language model that was trained before hears nothing strange at first

    def encode(self, events: Tensor, mask: Tensor) -> Tensor:
        """(B, R, C), of which those of `mask` (B, R) are there → (B, R, I), each instant with those around it."""
        x = events.masked_fill(~mask[..., None], 0.0).to(self.out.weight.dtype).mT  # (B, C, R)
        for n, layer in enumerate(self.layers):
            inner = functional.gelu(layer(x)) * mask[:, None]
            x = x + inner if n else inner
        return x.mT

    def forward(self, encoded: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, R, I), (B, R) and (B, R) → tokens (B, N, D) without their time, their times and mask (B, N).

        A token's time is the mean of its instants' that are there.
        """
        rest = -encoded.shape[1] % self.stride
        mask = functional.pad(mask, (0, rest))
        x = functional.pad(encoded, (0, 0, 0, rest))
        tokens = self.norm(self.out(x.unflatten(1, (-1, self.stride)).flatten(2))) + self.stream
        shares = mask.unflatten(1, (-1, self.stride)).float()  # (B, N, stride)
        dates = functional.pad(times.float(), (0, rest)).unflatten(1, (-1, self.stride))
        middle = (dates * shares).sum(-1) / shares.sum(-1).clamp(min=1)
        return tokens, middle, shares.any(-1)


def _relative_position(times: Tensor, seen: VisualInputs) -> Tensor:
    """Where in the video `times` (B, F) are, from the first frame of the whole to the last → waves (B, F, 2 · WAVES);
    the middle where no more than one frame of it is there."""
    whole, there = seen.long_term_times.float(), seen.long_term_mask
    first = whole.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
    span = whole.masked_fill(~there, -torch.inf).amax(dim=1, keepdim=True) - first
    share = torch.where(span > 0, (times.float() - first) / span, 0.5).clamp(-1, 2)
    angles = share[..., None] * math.pi * 2.0 ** torch.arange(NUM_POSITION_WAVES, device=times.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
