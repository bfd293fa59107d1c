"""Visual inputs of each window: its own frames, at their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fixtures.tiny import musicgen as tiny
from tests.sketch.stub_videos import StubFrameSource, video
from v2m.analysis.visual_events import EVENT_CHANNELS
from v2m.checkpoints import V2M, VisualInputConfig
from v2m.core.types import Pixels
from v2m.generators.vidmuse_engine import VisualFrontend


class Dated(StubFrameSource):
    """A frame source whose frames say when they are shown, a fifth of a second to a level."""

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: object = None) -> Pixels:
        levels = np.round(np.array(times) * 5).astype(np.uint8)
        return np.broadcast_to(levels[:, None, None, None], (len(levels), 2, 2, 3)).copy()


class Plain:
    """A vision encoder that gives the seconds that `Dated` frames say."""

    name, num_tokens, dim, aspect, convert = "plain", 2, 3, "squash", None

    def encode(self, frames: Any) -> Tensor:
        return torch.from_numpy(frames[:, 0, 0, 0] / 5).float()[:, None, None].expand(-1, 2, 3)

    def decode_width(self, width: int, height: int) -> int:
        return 2


def clip(seconds: float) -> Any:
    drawn = video(seconds, cuts=((5.2, 0.6), (31.0, 0.9)))
    assert isinstance(drawn.source, StubFrameSource)
    return replace(drawn, source=Dated(drawn.source.features))


@pytest.mark.parametrize(("begin", "end"), [(0.0, 30.0), (15.0, 45.0)])
def test_each_window_gets_its_own_frames_including_the_last(begin: float, end: float) -> None:
    """The second window of 45 s gets 15 s to 45 s, and long-term frames from before its start."""
    inputs = VisualFrontend(Plain(), VisualInputConfig(num_long_term_frames=9)).window_encoder(clip(45.0))(begin, end)
    assert inputs.short_term.shape == (1, 60, 2, 3)
    assert inputs.short_term_times[0].tolist() == pytest.approx([0.25 + 0.5 * k for k in range(60)])
    assert torch.allclose(inputs.short_term[0, :, 0, 0], begin + inputs.short_term_times[0], atol=0.11)
    assert inputs.long_term_times[0].tolist() == pytest.approx([2.5 + 5 * k - begin for k in range(9)])
    assert torch.allclose(inputs.long_term[0, :, 1, 2], begin + inputs.long_term_times[0], atol=0.11)
    assert inputs.short_term_mask.all()
    assert inputs.long_term_mask.all()
    assert inputs.events.shape == (1, 0, 0)


def test_window_past_the_end_of_the_video_is_cropped() -> None:
    inputs = VisualFrontend(Plain(), VisualInputConfig(num_long_term_frames=2)).window_encoder(clip(7.01))(0.0, 7.02)
    assert inputs.short_term_times[0].tolist() == pytest.approx([(k + 0.5) * 7.01 / 14 for k in range(14)])


def test_cuts_appear_in_the_events_at_their_times() -> None:
    config = VisualInputConfig(num_long_term_frames=2, event_channels=EVENT_CHANNELS)
    for begin, cut, strength in ((4.0, 1.2, 0.6), (15.0, 16.0, 0.9)):
        inputs = VisualFrontend(Plain(), config).window_encoder(clip(45.0))(begin, begin + 30.0)
        assert inputs.events.shape == (1, 600, len(EVENT_CHANNELS))
        cuts = inputs.events[0, :, 0]
        assert cuts[cuts > 0].tolist() == pytest.approx([strength] + [0.9] * (begin < 5))
        assert inputs.event_times[0, cuts.nonzero()[0, 0]] == pytest.approx(cut, abs=0.05)


@torch.inference_mode()
def test_single_black_frame_equals_a_black_video(tmp_path: Path) -> None:
    """VidMuse's negative gives the same attention for one black frame or sixty."""
    model = V2M.from_pretrained(str(tiny.write_vidmuse(tmp_path)))
    eyes = VisualFrontend.load(model, "tiny", torch.device("cpu"))
    one = eyes.black_frame()
    many = one._replace(
        **{name: getattr(one, name).repeat_interleave(7, 1) for name in one._fields if not name.startswith("event")}
    )
    codes = torch.randint(tiny.CODEBOOK_SIZE, (1, tiny.NUM_CODEBOOKS, 9))
    expected = model.lm(codes, model.encode_video(many))
    assert torch.allclose(model.lm(codes, model.encode_video(one)), expected, atol=1e-5)
    assert not torch.allclose(model.lm(codes), expected, atol=1e-2)
