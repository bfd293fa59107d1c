"""The private names of third parties that `v2m.core.compat` uses, by the versions that have them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import EncodecModel, LlamaForCausalLM

from v2m.core.compat import execution_device, onednn_ops, supports_sdpa

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
