"""Cross entropies of clips by themselves, with their own video and words and with others'."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import held
from tests.fixtures.tiny import shards
from v2m.data.collate import Batch
from v2m.models import losses
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig, MusicModel
from v2m.models.visual.vidmuse import ConditionerConfig, ConditionerKind

OTHERS = np.array([1, 2, 0, 4, 3])


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return held.windows(shards.write(tmp_path_factory.mktemp("shards"), (3, 2), seconds=2.0), 1.0, (1.0,))[0]


def model(kind: ConditionerKind = "v2m") -> MusicModel:
    torch.manual_seed(0)
    sees = ConditionerConfig(
        kind, vision_dim=24, num_tokens=5, num_layers=1, num_heads=2, head_dim=16, ffn_dim=32, num_fusion_heads=4
    )
    return MusicModel(
        MusicConfig(LMConfig(32, 2, 4, codebook_size=64), 16, conditioner=sees, segment_duration=1.0)
    ).eval()


def test_the_mean_over_clips_is_the_loss_of_training(batch: Batch) -> None:
    music = model()
    found = held.entropies(music, batch, batch.visual, batch.text)
    read = losses.model_inputs(
        batch.codes, batch.lengths, music.config.lm.delay_pattern, music.config.lm.special_token_id
    )
    logits = music.lm(read, music.build_condition(batch.text, batch.visual))
    wanted = losses.codebook_cross_entropy(
        logits, batch.codes, batch.lengths, music.config.lm.delay_pattern
    ).per_codebook
    assert found.shape == (5, 4)
    assert found.mean(axis=0) == pytest.approx(wanted.detach().numpy(), abs=1e-5)


def test_a_clip_is_measured_with_what_it_is_given_of_another(batch: Batch) -> None:
    """Clip 0 with the video and words of clip 1, as if it were alone."""
    music = model()
    found = held.entropies(music, batch, held.given(batch.visual, OTHERS), held.told(batch.text, OTHERS))
    own, other = np.array([0]), np.array([1])
    alone = Batch([""], batch.codes[:1], batch.lengths[:1], held.given(batch.visual, own), held.told(batch.text, own))
    wanted = held.entropies(music, alone, held.given(batch.visual, other), held.told(batch.text, other))
    assert found[0] == pytest.approx(wanted[0], abs=1e-5)
    assert np.abs(found - held.entropies(music, batch, batch.visual, batch.text)).max() > 1e-3


def test_without_video_and_words_nothing_of_them_counts(batch: Batch) -> None:
    music = model()
    found = held.entropies(music, batch, None, None)
    assert found == pytest.approx(held.entropies(music, batch._replace(seen=held.late(batch.visual, 3.0)), None, None))
    assert np.abs(found - held.entropies(music, batch, batch.visual, None)).max() > 1e-3
    assert np.abs(found - held.entropies(music, batch, None, batch.text)).max() > 1e-3


@pytest.mark.parametrize(("kind", "knows"), [("v2m", True), ("vidmuse", False)])
def test_only_the_shape_that_knows_the_time_hears_of_rhythm_and_lateness(
    batch: Batch, kind: ConditionerKind, knows: bool
) -> None:
    music = model(kind)
    own = held.entropies(music, batch, batch.visual, None)
    for other in (held.beating(batch.visual, OTHERS), held.late(batch.visual, 0.5)):
        assert (np.abs(held.entropies(music, batch, other, None) - own).max() > 1e-3) == knows
