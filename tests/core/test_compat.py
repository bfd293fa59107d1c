"""The private names of third-party packages that `v2m.core.compat` uses exist in the pinned versions."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from transformers import EncodecModel, LlamaForCausalLM

from v2m.core import compat
from v2m.core.compat import (
    attached_trainer,
    cpu_has_vnni,
    execution_device,
    last_saved_step,
    mark_saved,
    onednn_int8_ops,
    onednn_ops,
    onednn_supports,
    save_with_callback,
    set_parallel_sizes,
    set_wandb_offline,
    supports_sdpa,
    wandb_init_arguments,
    wandb_offline,
    wandb_run_started,
)

TORCH = "2.11"  # the minor release in which all private names of PyTorch below were seen


def test_diffusers_pipelines_have_an_execution_device() -> None:
    assert version("diffusers").startswith("0.4")
    assert isinstance(DiffusionPipeline.__dict__["_execution_device"], property)
    assert execution_device(type("Pipeline", (), {"_execution_device": "cpu"})()) == "cpu"


def test_transformers_models_state_their_attention() -> None:
    assert version("transformers").startswith("5.")
    assert (supports_sdpa(LlamaForCausalLM), supports_sdpa(EncodecModel)) == (True, False)


def test_torch_is_the_release_whose_private_names_we_use() -> None:
    assert torch.__version__.startswith(f"{TORCH}."), f"look at v2m/core/compat.py before torch moves on from {TORCH}"


@pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_vnni_supported"])
def test_cpu_flags_exist(name: str) -> None:
    assert isinstance(getattr(torch.cpu, name)(), bool)


@pytest.mark.parametrize("name", ["_weight_int8pack_mm", "_make_per_channel_quantized_tensor"])
def test_aten_operators_exist(name: str) -> None:
    assert hasattr(torch.ops.aten, name)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch is built without oneDNN")
def test_onednn_operators_exist() -> None:
    ops: Any = torch.ops.mkldnn
    assert hasattr(ops, "_reorder_linear_weight")
    assert hasattr(ops._linear_pointwise, "binary")
    assert onednn_ops() is not None
    assert onednn_supports(torch.float32)
    assert {type(onednn_supports(dtype)) for dtype in (torch.bfloat16, torch.float16)} == {bool}
    assert hasattr(torch.ops.onednn, "qlinear_prepack")
    assert hasattr(torch.ops.onednn, "qlinear_pointwise")
    assert (onednn_int8_ops() is not None) == cpu_has_vnni()


def test_lightning_is_the_release_whose_private_names_we_use() -> None:
    assert version("lightning").startswith("2.6."), "look at v2m/core/compat.py before Lightning moves on from 2.6"


def test_lightnings_checkpoint_callback_knows_its_last_step(tmp_path: Path) -> None:
    callback, saved = ModelCheckpoint(tmp_path), list[str]()
    assert last_saved_step(callback) == 0
    mark_saved(callback, 5)
    assert last_saved_step(callback) == 5
    trainer = SimpleNamespace(global_step=7, save_checkpoint=lambda path, _: saved.append(path), is_global_zero=False)
    save_with_callback(callback, trainer, "a.ckpt")
    assert (saved, last_saved_step(callback)) == (["a.ckpt"], 7)


def test_lightning_refuses_to_clip_for_an_optimizer_that_unscales_itself() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], fused=True)
    precision = MixedPrecision("bf16-mixed", "cpu")
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        precision.clip_gradients(optimizer, 1.0)
    compat.allow_clipping(optimizer)
    precision.clip_gradients(optimizer, 1.0)


def test_lightnings_parallel_strategy_and_module_have_their_private_fields() -> None:
    strategy = ModelParallelStrategy()
    assert {"_data_parallel_size", "_tensor_parallel_size"} <= vars(strategy).keys()
    set_parallel_sizes(strategy, 4, 1)
    assert (strategy._data_parallel_size, strategy._tensor_parallel_size) == (4, 1)
    assert attached_trainer(lightning.LightningModule()) is None


def test_lightnings_wandb_logger_can_be_set_offline(tmp_path: Path) -> None:
    logger = WandbLogger(project="a", save_dir=tmp_path)
    assert (wandb_offline(logger), wandb_run_started(logger)) == (False, False)
    assert wandb_init_arguments(logger)["project"] == "a"
    set_wandb_offline(logger)
    assert (wandb_offline(logger), wandb_init_arguments(logger)["mode"]) == (True, "offline")


def test_lightnings_command_line_has_the_method_that_train_overrides() -> None:
    assert callable(LightningCLI.__dict__["_parse_ckpt_path"])


@pytest.mark.parametrize(("limit", "shown"), [(None, "Epoch 3   "), (5, "Epoch 3/4 ")])
def test_epochs_are_counted_without_a_limit_where_there_is_none(limit: int | None, shown: str) -> None:
    """Lightning 2.6 shows "Epoch 3/-2" where only the steps are limited."""
    lightning = pytest.importorskip("lightning")
    rich = pytest.importorskip("lightning.pytorch.callbacks.progress.rich_progress")
    bar = rich.RichProgressBar()
    trainer = lightning.Trainer(
        max_steps=9, max_epochs=limit, callbacks=[bar], logger=False, enable_checkpointing=False, accelerator="cpu"
    )
    bar.setup(trainer, lightning.LightningModule(), "fit")
    compat.hide_unlimited_epochs(trainer)
    assert bar._get_train_description(3) == shown
