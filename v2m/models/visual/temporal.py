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
from v2m.models.conditioning import Condition, Cues, join
from v2m.models.lm import positions
from v2m.models.visual.inputs import Seen
from v2m.models.visual.vidmuse import ConditionerConfig, attended

KERNEL = 5  # instants of rhythm that a convolution spans
WAVES = 4  # that say where in the video a frame is, each twice as fast as the one before


class TimedFrames(nn.Module):
    """Near frames look at each other, across time, and at the whole video; the rhythm is told beside them."""

    def __init__(self, config: ConditionerConfig, width: int) -> None:
        super().__init__()
        inner, self.code_rate = config.inner, config.code_rate
        self.pool = Pool(config)
        self.story = nn.Linear(2 * WAVES, inner)
        self.near, self.whole = (nn.Parameter(0.5 * torch.randn(inner)) for _ in range(2))
        self.layers = nn.ModuleList(TimeLayer(config) for _ in range(config.layers))
        self.out, self.norm = nn.Linear(inner, width), nn.LayerNorm(width)
        self.rhythm = Rhythm(config, width)

    def forward(self, seen: Seen) -> Condition:
        """(B, F · Q + N, D): of the window's frames, then of its rhythm; and a cue for each of its R instants."""
        near, near_mask = self._dated(seen.near, seen.near_times, seen.near_mask, seen)
        whole, whole_mask = self._dated(seen.whole, seen.whole_times, seen.whole_mask, seen)
        x, whole = near + self.near, whole + self.whole
        for layer in self.layers:
            x = layer(x, near_mask, whole, whole_mask)
        x = self.norm(self.out(x))
        x = x + self._when(seen.near_times, x).repeat_interleave(self.pool.count, 1)
        felt = self.rhythm.feel(seen.rhythm, seen.rhythm_mask)
        beats, times, mask = self.rhythm(felt, seen.rhythm_times, seen.rhythm_mask)
        cues = Cues(self.rhythm.cue(felt), place_at(seen.rhythm_times.float(), self.code_rate), seen.rhythm_mask)
        frames = Condition(x * near_mask[..., None], near_mask)
        joined = join(frames, Condition((beats + self._when(times, beats)) * mask[..., None], mask, cues))
        assert joined is not None
        return joined

    def _dated(self, frames: Tensor, times: Tensor, mask: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Tokens (B, F, P, W) → (B, F · Q, I) that say when and where in the video they are, and which are there."""
        x = self.pool(frames.masked_fill(~mask[..., None, None], 0.0))  # (B, F, Q, I)
        told = self._when(times, x) + self.story(_story(times, seen).to(x.dtype))
        return (x + told[:, :, None]).flatten(1, 2), mask.repeat_interleave(self.pool.count, 1)

    def _when(self, times: Tensor, like: Tensor) -> Tensor:
        """Seconds (B, S) → (B, S, width of `like`): the language model's waves at the codec frame of that instant."""
        places = place_at(times.float(), self.code_rate)
        return positions(places.flatten(), like.shape[-1]).unflatten(0, places.shape).to(like.dtype)


class Pool(nn.Module):
    """A frame's tokens, brought to the width inside, and to few if there are many."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        inner, self.heads = config.inner, config.heads
        self.norm, self.lead = nn.LayerNorm(config.width), nn.Linear(config.width, inner)
        self.places = nn.Parameter(0.5 * torch.randn(config.tokens, inner))
        self.count = min(config.tokens, config.pooled)  # Q
        self.query = self.key_value = None
        if config.tokens > config.pooled:
            self.query = nn.Parameter(torch.randn(config.pooled, inner))
            self.key_value = nn.Linear(inner, 2 * inner, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, P, W) → (B, F, Q, I)."""
        x = self.lead(self.norm(frames.to(self.lead.weight.dtype))) + self.places
        if self.query is None or self.key_value is None:
            return x
        flat = x.flatten(0, 1)  # (B · F, P, I)
        key, value = self.key_value(flat).chunk(2, dim=-1)
        query = self.query.to(key.dtype).expand(len(flat), -1, -1)
        return attended(query, key, value, self.heads).unflatten(0, x.shape[:2])


class TimeLayer(nn.Module):
    """Attention among the near tokens, attention to the whole video's, feed-forward; each normed before."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        inner, self.heads = config.inner, config.heads
        self.norm_own, self.norm_whole, self.norm_feedforward = (nn.LayerNorm(inner) for _ in range(3))
        self.query_key_value, self.own = nn.Linear(inner, 3 * inner, bias=False), nn.Linear(inner, inner)
        self.query, self.key_value = nn.Linear(inner, inner, bias=False), nn.Linear(inner, 2 * inner, bias=False)
        self.found = nn.Linear(inner, inner)
        self.expand, self.contract = nn.Linear(inner, config.feedforward), nn.Linear(config.feedforward, inner)

    def forward(self, x: Tensor, there: Tensor, whole: Tensor, whole_there: Tensor) -> Tensor:
        """(B, S, I), of which those of `there` (B, S) are, and the whole video's (B, S', I) likewise → (B, S, I)."""
        query, key, value = self.query_key_value(self.norm_own(x)).chunk(3, dim=-1)
        x = x + self.own(attended(query, key, value, self.heads, there))
        key, value = self.key_value(whole).chunk(2, dim=-1)
        query = self.query(self.norm_whole(x))
        x = x + self.found(attended(query, key, value, self.heads, whole_there))
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class Rhythm(nn.Module):
    """Convolutions over what is measured many times a second, then a token for every few instants."""

    def __init__(self, config: ConditionerConfig, width: int) -> None:
        super().__init__()
        inner, self.stride = config.inner, config.rhythm_stride
        widths = [config.rhythm, *[inner] * config.rhythm_layers]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, padding=KERNEL // 2) for before, after in pairwise(widths)
        )
        self.out, self.norm = nn.Linear(self.stride * inner, width), nn.LayerNorm(width)
        self.stream = nn.Parameter(0.5 * torch.randn(width))
        self.cue = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.cue.weight)  # a language model that was trained before hears nothing strange at first

    def feel(self, rhythm: Tensor, mask: Tensor) -> Tensor:
        """(B, R, C), of which those of `mask` (B, R) are there → (B, R, I), each instant with those around it."""
        x = rhythm.masked_fill(~mask[..., None], 0.0).to(self.out.weight.dtype).mT  # (B, C, R)
        for n, layer in enumerate(self.layers):
            inner = functional.gelu(layer(x)) * mask[:, None]
            x = x + inner if n else inner
        return x.mT

    def forward(self, felt: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, R, I), (B, R) and (B, R) → tokens (B, N, D) without their time, their times and mask (B, N).

        A token's time is the mean of its instants' that are there.
        """
        rest = -felt.shape[1] % self.stride
        mask = functional.pad(mask, (0, rest))
        x = functional.pad(felt, (0, 0, 0, rest))
        tokens = self.norm(self.out(x.unflatten(1, (-1, self.stride)).flatten(2))) + self.stream
        shares = mask.unflatten(1, (-1, self.stride)).float()  # (B, N, stride)
        dates = functional.pad(times.float(), (0, rest)).unflatten(1, (-1, self.stride))
        middle = (dates * shares).sum(-1) / shares.sum(-1).clamp(min=1)
        return tokens, middle, shares.any(-1)


def _story(times: Tensor, seen: Seen) -> Tensor:
    """Where in the video `times` (B, F) are, from the first frame of the whole to the last → waves (B, F, 2 · WAVES);
    the middle where no more than one frame of it is there."""
    whole, there = seen.whole_times.float(), seen.whole_mask
    first = whole.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
    span = whole.masked_fill(~there, -torch.inf).amax(dim=1, keepdim=True) - first
    share = torch.where(span > 0, (times.float() - first) / span, 0.5).clamp(-1, 2)
    angles = share[..., None] * math.pi * 2.0 ** torch.arange(WAVES, device=times.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
