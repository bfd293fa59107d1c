"""The private names of third parties that `v2m.core.compat` uses, by the versions that have them."""

from __future__ import annotations

from importlib.metadata import version

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import EncodecModel, LlamaForCausalLM

from v2m.core.compat import execution_device, supports_sdpa


def test_diffusers_pipelines_have_an_execution_device() -> None:
    assert version("diffusers").startswith("0.4")
    assert isinstance(DiffusionPipeline.__dict__["_execution_device"], property)
    assert execution_device(type("Pipeline", (), {"_execution_device": "cpu"})()) == "cpu"


def test_transformers_models_state_their_attention() -> None:
    assert version("transformers").startswith("5.")
    assert (supports_sdpa(LlamaForCausalLM), supports_sdpa(EncodecModel)) == (True, False)
