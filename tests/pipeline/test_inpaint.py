"""`v2m.inpaint`: new music inside the range, unchanged music outside, and refused sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import v2m
from v2m.core.errors import UsageError
from v2m.pipeline.result import Extras

RATE = 48_000


def test_inpaint_replaces_the_range_and_keeps_the_rest(clip: Path) -> None:
    wav, kept = clip.with_name("cuts.v2m.wav"), clip.with_name("kept.wav")
    v2m.score_video(clip, seed=1, extras=Extras(wav=True))
    wav.rename(kept)
    shutil.copy(clip.with_name("cuts.v2m.json"), kept.with_suffix(".json"))
    result = v2m.inpaint(clip.with_name("cuts.v2m.mp4"), 1.5, 3.0, source=kept, seed=5, extras=Extras(wav=True))
    old, new = (soundfile.read(path, dtype="float32")[0] for path in (kept, wav))
    outside = np.r_[0 : int(1.5 * RATE), 3 * RATE : len(old)]
    np.testing.assert_array_equal(new[outside], old[outside])
    assert np.abs(new - old).max() > 0.01
    assert result.path == clip.with_name("cuts.v2m.mp4")
    assert result.metadata.seed == 5
    with pytest.raises(UsageError, match="`inpaint` 3:9 lies outside of the video"):
        v2m.inpaint(clip, 3.0, 9.0, source=kept)
    clip.with_name("cuts.v2m.json").unlink()
    with pytest.raises(UsageError, match=r"no sidecar 'cuts.v2m.json' of v2m says .* as `source`"):
        v2m.inpaint(clip, 1.0, 2.0)
