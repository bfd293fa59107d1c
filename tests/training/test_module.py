"""What learns, on shards, under Lightning's own trainer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn

from tests.fixtures.tiny import shards as made
from tests.taggers.test_videollama import SMALL
from v2m import checkpoints
from v2m.checkpoints import Component
from v2m.core.errors import UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, Tags, Video
from v2m.data.collate import Batch
from v2m.data.module import ShardData
from v2m.data.video_jobs import VideoJob, VideoJobs
from v2m.media import video
from v2m.models import losses
from v2m.models.lm import LMConfig
from v2m.models.music_model import MusicConfig
from v2m.models.visual_conditioner import ConditionerConfig, TemporalConditioner, VisualInputs
from v2m.pipeline.batch import VideoResult
from v2m.taggers.videollama import VideoLLaMA3
from v2m.training.ema import EMACallback
from v2m.training.module import LitMusicLM, check_manifest
from v2m.training.optim import OptimConfig
from v2m.training.predict import LitGenerate

LM = LMConfig(dim=32, num_layers=2, num_heads=4)
SEES = ConditionerConfig(num_layers=1, num_heads=2, head_dim=16, ffn_dim=32)
FAST = OptimConfig(lr=3e-3, lm_lr_scale=1.0, warmup_steps=5)


def trainer(**given: Any) -> lightning.Trainer:
    """Without any file, and silent."""
    quiet: Any = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
    }
    return lightning.Trainer(**(quiet | given))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("shards"), (4, 4), seconds=4.0)


def data(folder: Path, batch: int = 2, window: float = 1.0) -> ShardData:
    return ShardData(folder, folder, batch_size=batch, window=window, num_workers=0)


def module(kind: type[LitMusicLM] = LitMusicLM, /, **given: Any) -> Any:
    torch.manual_seed(0)
    return kind(**({"lm": LM, "conditioner": SEES, "optim": FAST, "window": 1.0} | given))


@pytest.mark.parametrize(("precision", "last"), [("32-true", 0.05), ("bf16-mixed", 0.1)])
def test_one_batch_is_overfitted(tmp_path: Path, precision: str, last: float) -> None:
    """From about ln 64 = 4.16."""
    one = made.write(tmp_path, (2,), seconds=1.0)
    model = module(text_dropout=0.0, video_dropout=0.0)
    run = trainer(max_steps=250, precision=precision, gradient_clip_val=1.0)
    run.fit(model, data(one))
    assert run.optimizers[0].param_groups[0]["fused"]
    assert float(run.callback_metrics["train/loss"]) < last
    assert all(value.dtype == torch.float32 for value in model.parameters())
    begin = module()
    begin.trainer = run
    begin.setup("fit")
    batch = next(iter(data(one).val_dataloader()))
    assert isinstance(batch, Batch)
    first = losses.codebook_cross_entropy(
        begin(batch), batch.codes, batch.lengths, begin.music_model.config.lm.delay_pattern
    )[0]
    assert abs(float(first.detach()) - math.log(64)) < 1.5


def test_mixed_precision_keeps_times_in_float32(folder: Path) -> None:
    """At 29 s bfloat16 knows eighths of a second, and the language model's clock counts fiftieths."""
    seen: list[VisualInputs] = []
    model = module()
    run = trainer(max_steps=1, precision="bf16-mixed")
    run.fit(model, data(folder))
    conditioner = model.music_model.conditioner
    assert isinstance(conditioner, TemporalConditioner)
    conditioner.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run.validate(model, data(folder), verbose=False)
    assert {each.dtype for each in seen[0] if each.dtype != torch.bool} == {torch.float32}
    told = [
        conditioner._time_embedding(torch.tensor([[at]]), torch.zeros(1, dtype=torch.bfloat16)[None].expand(1, 32))
        for at in (29.0, 29.02)
    ]
    assert (told[0] - told[1]).abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which the compiler looks at
def test_compile_and_gradient_checkpointing_keep_the_result(folder: Path) -> None:
    """Neither changes what is learned, nor the names of weights."""
    found: list[dict[str, torch.Tensor]] = []
    for given in ({}, {"gradient_checkpointing": True}, {"compile": True}):
        model = module(**given)
        run = trainer(max_steps=3, gradient_clip_val=1.0)
        run.fit(model, data(folder))
        found.append(model.music_model.state_dict())
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.allclose(value, other[name], atol=1e-4) for name, value in found[0].items())


def test_model_sizes_come_from_the_manifest(folder: Path) -> None:
    model = module()
    trainer(fast_dev_run=1).fit(model, data(folder))
    config = model.music_model.config
    assert (config.lm.num_codebooks, config.lm.codebook_size, config.text_dim) == (4, 64, 16)
    assert config.conditioner is not None
    assert (config.conditioner.num_tokens, config.conditioner.vision_dim) == (5, 24)
    assert {kind: part.name for kind, part in model.music_model.components.items()} == {
        "vision_encoder": "tiny",
        "codec": "tiny",
        "text_encoder": "tiny",
    }


def test_check_manifest_lists_all_differences() -> None:
    config = MusicConfig(replace(LM, codebook_size=64), 16, conditioner=replace(SEES, num_tokens=5, vision_dim=24))
    check_manifest(config, made.KEPT)
    other = replace(made.KEPT, vision_dim=32, num_codebooks=8, text_dim=17)
    with pytest.raises(UsageError, match=r"8 codebooks where the model has 4, 17 dimensions .* 32 dimensions"):
        check_manifest(config, other)


def test_condition_dropout_has_requested_rates(folder: Path) -> None:
    model = module(text_dropout=0.1, video_dropout=0.4)
    run = trainer(max_steps=1)
    run.fit(model, data(folder))
    seen: list[torch.Tensor] = []

    def forward(batch: Batch, drop_text: Any = None, drop_video: Any = None) -> torch.Tensor:
        seen.append(torch.stack([drop_text, drop_video]).float())
        return torch.zeros(len(batch.codes), 4, 50 + 3, 64)

    model.forward = forward  # type: ignore[method-assign]
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch = next(iter(data(folder).train_dataloader()))
    many = batch._replace(codes=batch.codes.repeat(2000, 1, 1), lengths=batch.lengths.repeat(2000))
    model.training_step(many, 0)
    text, video = seen[0].mean(1).tolist()
    both = float(seen[0].prod(0).mean())
    assert abs(text - 0.1) < 0.02
    assert abs(video - 0.4) < 0.03
    assert abs(both - 0.04) < 0.015  # each by itself


def test_param_groups_scale_pretrained_learning_rate(folder: Path) -> None:
    model = module(optim=OptimConfig(lr=1e-3, lm_lr_scale=0.1))
    run = trainer(max_steps=1)
    run.fit(model, data(folder))
    found = {group["name"]: (group["initial_lr"], group["weight_decay"]) for group in run.optimizers[0].param_groups}
    assert found == {
        "lm": (1e-4, 0.1),
        "lm_no_decay": (1e-4, 0.0),
        "conditioner": (1e-3, 0.1),
        "conditioner_no_decay": (1e-3, 0.0),
    }
    held = [value for group in run.optimizers[0].param_groups for value in group["params"]]
    assert len({id(value) for value in held}) == len(held) == len(list(model.parameters()))


def test_learning_rate_schedule_is_warmup_then_cosine() -> None:
    how = OptimConfig(warmup_steps=10, min_lr_ratio=0.1)
    assert [how.lr_factor(step, 110) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert abs(how.lr_factor(60, 110) - 0.55) < 1e-9
    assert abs(how.lr_factor(110, 110) - 0.1) < 1e-9
    assert how.lr_factor(500, 110) == how.lr_factor(110, 110)


def test_learning_rate_schedule_is_constant_until_its_last_decay_steps() -> None:
    how = OptimConfig(warmup_steps=10, decay_steps=20, min_lr_ratio=0.1)
    assert [how.lr_factor(step, 110) for step in (4, 10, 50, 90)] == [0.5, 1.0, 1.0, 1.0]
    assert abs(how.lr_factor(100, 110) - 0.55) < 1e-9
    assert abs(how.lr_factor(110, 110) - 0.1) < 1e-9


def test_validation_loss_is_independent_of_batch_size(tmp_path: Path) -> None:
    folder = made.write(tmp_path, (5,), seconds=4.0)
    model = module()
    run = trainer(max_steps=1)
    run.fit(model, data(folder))
    figures = [trainer().validate(model, data(folder, batch=batch), verbose=False)[0] for batch in (1, 2, 5)]
    for figure in figures:
        assert figure["validation/loss"] == pytest.approx(figures[0]["validation/loss"], abs=1e-5)
    assert set(figures[0]) == {"validation/loss", *(f"validation/loss_{k}" for k in range(4))}


def test_invalid_settings_are_reported_together() -> None:
    with pytest.raises(UsageError, match=r"text_dropout 2 .*video_dropout -1 .*not both"):
        LitMusicLM("a", lm=LM, text_dropout=2.0, video_dropout=-1.0)


def test_schedule_without_max_steps_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="max_steps"):
        trainer(max_epochs=1).fit(module(), data(folder))


def test_init_from_with_other_components_is_refused(folder: Path, tmp_path: Path) -> None:
    """By name; of the vision encoder only where the conditioner that learned from it is kept."""
    about = replace(SEES, num_tokens=5, vision_dim=24)
    for kind, name in (("codec", "owner/other"), ("text_encoder", "/other"), ("vision_encoder", "other@main")):
        start = checkpoints.V2M(MusicConfig(replace(LM, codebook_size=64), 16, conditioner=about, segment_duration=1.0))
        start.components = {each: Component("somewhere/tiny/") for each in ("codec", "text_encoder", "vision_encoder")}
        start.save_pretrained(tmp_path / "same")
        trainer(fast_dev_run=1).fit(module(init_from=str(tmp_path / "same"), lm=None, conditioner=None), data(folder))
        start.components[kind] = Component(name)
        start.save_pretrained(tmp_path / kind)
        told = f"{kind.replace('_', ' ')} 'tiny', the start with '{name}': prepare with the start's"
        with pytest.raises(UsageError, match=told):
            trainer(fast_dev_run=1).fit(module(init_from=str(tmp_path / kind), lm=None, conditioner=None), data(folder))
    anew = module(init_from=str(tmp_path / "vision_encoder"), lm=None, conditioner=replace(SEES, num_layers=2))
    trainer(fast_dev_run=1).fit(anew, data(folder))
    assert anew.music_model.components["vision_encoder"] == Component("tiny")


def test_inputs_of_the_start_that_shards_lack_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = MusicConfig(replace(LM, codebook_size=64, cross_attention=False), 16, num_chroma=12, segment_duration=1.0)
    start = checkpoints.V2M(config)
    start.components = {kind: Component("tiny") for kind in ("codec", "text_encoder")}
    start.save_pretrained(tmp_path / "melody")
    trainer(fast_dev_run=1).fit(module(init_from=str(tmp_path / "melody"), lm=None, conditioner=None), data(folder))
    (warning,) = (record.getMessage() for record in caplog.records if record.name == "v2m.training.module")
    assert warning.endswith("melody follows a melody, which shards lack: it is trained without")


class Linear(nn.Linear):
    """A tagger that is a module itself."""

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        return hints


@pytest.mark.parametrize("kind", ["videollama3", "a module"])
def test_tagger_is_not_trained_moved_or_saved(
    kind: str, folder: Path, v2b_weights: Path, media: Path, tmp_path: Path
) -> None:
    tagger: Tagger = Linear(3, 3)
    weights: nn.Module = Linear(3, 3)
    if kind == "videollama3":
        tagger = VideoLLaMA3(str(v2b_weights / "tagger"), **SMALL)
        tagger.tag(video.open(media / "cuts.mp4"), Tags())
        with tagger._lazy_model.model() as loaded:
            weights = loaded.model  # type: ignore[attr-defined]
    else:
        assert isinstance(tagger, nn.Module)
        weights = tagger
    model, plain = module(LitGenerate, tagger=tagger), module()
    assert model.tagger is tagger
    run = trainer(max_steps=1)
    run.fit(model, data(folder))
    trainer(max_steps=1).fit(plain, data(folder))
    own = {id(value) for value in weights.parameters()}
    learning = [value for group in run.optimizers[0].param_groups for value in group["params"]]
    assert own
    assert not own & {id(value) for value in [*model.parameters(), *learning]}
    assert weights not in list(model.modules())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    run.save_checkpoint(tmp_path / "made.ckpt")
    held = torch.load(tmp_path / "made.ckpt", weights_only=True)
    assert held["state_dict"].keys() == plain.state_dict().keys()
    state = weights.training
    model.train(not state).to("meta")
    assert weights.training == state
    assert {value.device.type for value in weights.parameters()} == {"cpu"}


def test_predict_and_validate_use_ema_weights(folder: Path, tmp_path: Path) -> None:
    class Seen(LitGenerate):
        def on_predict_start(self) -> None:
            self.seen = [value.clone() for value in self.parameters()]

        def predict_step(self, batch: list[VideoJob], _: int) -> list[VideoResult]:
            return []

    torch.manual_seed(0)
    model, average = Seen(lm=LM, conditioner=SEES, optim=FAST, window=1.0), EMACallback(0.9)
    run = trainer(max_steps=6, callbacks=[average])
    run.fit(model, data(folder))
    trained, wanted = ([value.clone() for value in each] for each in (model.parameters(), average._ema.values()))
    run.predict(model, VideoJobs((VideoJob(Path("a.mp4"), Path()),)))
    assert all(map(torch.equal, model.seen, wanted))
    assert not all(map(torch.equal, model.seen, trained))
    assert all(map(torch.equal, model.parameters(), trained))
    run.save_checkpoint(tmp_path / "made.ckpt")
    again = module()
    trainer().validate(again, data(folder), ckpt_path=tmp_path / "made.ckpt", weights_only=True, verbose=False)
    assert all(map(torch.equal, again.parameters(), wanted))


def test_predict_refuses_sharding_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer()
    monkeypatch.setattr(type(run.strategy), "restore_checkpoint_after_setup", True)
    with pytest.raises(UsageError, match="predict shares videos among devices, not weights"):
        run.predict(module(LitGenerate), VideoJobs((VideoJob(Path("a.mp4"), Path()),)))
