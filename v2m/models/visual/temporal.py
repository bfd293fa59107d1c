"""v2m's visual conditioner: every token carries its time, in the position embedding of the language model.

The LM adds sinusoidal embeddings of its steps. The same embedding, of the step that sounds when a frame is shown, is
added to the frame's tokens here, so that a step can attend to what is seen at its instant. Visual events enter twice:
as such tokens, and as a step bias on the very steps that sound then, since attention that is also offered text learns
to attend to the text alone. Names of submodules are names of weights in checkpoints: they stay.

B batch, F frames, P tokens a frame, W vision dimension, Q pooled tokens a frame, S tokens, R instants of events, C
event channels, N = R / stride event tokens, I inner dimension, D model dimension of the LM.
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

EVENT_KERNEL = 5  # instants that a convolution over the events spans
NUM_POSITION_WAVES = 4  # waves of a frame's relative position in the video, each twice as fast as the one before


class TemporalConditioner(nn.Module):
    """Short-term frames attend to each other across time and to the long-term ones; events stand beside them."""

    def __init__(self, config: ConditionerConfig, dim: int) -> None:
        super().__init__()
        inner_dim, self.codec_frame_rate = config.inner_dim, config.codec_frame_rate
        self.pool = TokenPooling(config)
        self.story = nn.Linear(2 * NUM_POSITION_WAVES, inner_dim)  # of the relative position in the video
        self.near, self.whole = (nn.Parameter(0.5 * torch.randn(inner_dim)) for _ in range(2))
        self.layers = nn.ModuleList(TemporalLayer(config) for _ in range(config.num_layers))
        self.out, self.norm = nn.Linear(inner_dim, dim), nn.LayerNorm(dim)
        self.rhythm = EventEncoder(config, dim)

    def forward(self, visual: VisualInputs) -> Condition:
        """Return (B, F · Q + N, D) of the window's frames and its events, with a step bias at each of R instants."""
        x, mask = self._with_time(visual.short_term, visual.short_term_times, visual.short_term_mask, visual)
        long_term, long_term_mask = self._with_time(
            visual.long_term, visual.long_term_times, visual.long_term_mask, visual
        )
        x, long_term = x + self.near, long_term + self.whole
        for layer in self.layers:
            x = layer(x, mask, long_term, long_term_mask)
        x = self.norm(self.out(x))
        x = x + self._time_embedding(visual.short_term_times, x).repeat_interleave(self.pool.num_tokens, 1)
        frames = Condition(x * mask[..., None], mask)
        encoded = self.rhythm.encode(visual.events, visual.event_mask)
        tokens, times, token_mask = self.rhythm(encoded, visual.event_times, visual.event_mask)
        positions = place_at(visual.event_times.float(), self.codec_frame_rate)
        step_bias = StepBias(self.rhythm.cue(encoded), positions, visual.event_mask)
        tokens = (tokens + self._time_embedding(times, tokens)) * token_mask[..., None]
        condition = concat(frames, Condition(tokens, token_mask, step_bias))
        assert condition is not None
        return condition

    def _with_time(self, frames: Tensor, times: Tensor, mask: Tensor, visual: VisualInputs) -> tuple[Tensor, Tensor]:
        """(B, F, P, W) → tokens (B, F · Q, I) with their time and place in the video, and their mask."""
        x = self.pool(frames.masked_fill(~mask[..., None, None], 0.0))  # (B, F, Q, I)
        time = self._time_embedding(times, x) + self.story(_relative_position(times, visual).to(x.dtype))
        return (x + time[:, :, None]).flatten(1, 2), mask.repeat_interleave(self.pool.num_tokens, 1)

    def _time_embedding(self, times: Tensor, like: Tensor) -> Tensor:
        """Seconds (B, S) → (B, S, dimension of `like`): the LM's embedding of the codec frame of that instant."""
        positions = place_at(times.float(), self.codec_frame_rate)
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

    def forward(self, x: Tensor, mask: Tensor, long_term: Tensor, long_term_mask: Tensor) -> Tensor:
        """(B, S, I) with `mask` (B, S), and long-term (B, S', I) with its mask (B, S') → (B, S, I)."""
        query, key, value = self.query_key_value(self.norm_own(x)).chunk(3, dim=-1)
        x = x + self.own(masked_attention(query, key, value, self.num_heads, mask))
        key, value = self.key_value(long_term).chunk(2, dim=-1)
        query = self.query(self.norm_whole(x))
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
        self.stream = nn.Parameter(0.5 * torch.randn(dim))  # tells event tokens from frame tokens
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


def _relative_position(times: Tensor, visual: VisualInputs) -> Tensor:
    """Waves (B, F, 2 · `NUM_POSITION_WAVES`) of where `times` (B, F) lie between the first and last long-term frame.

    The middle, where no more than one of these is valid.
    """
    long_term_times, mask = visual.long_term_times.float(), visual.long_term_mask
    first = long_term_times.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
    span = long_term_times.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True) - first
    fraction = torch.where(span > 0, (times.float() - first) / span, 0.5).clamp(-1, 2)
    angles = fraction[..., None] * math.pi * 2.0 ** torch.arange(NUM_POSITION_WAVES, device=times.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
