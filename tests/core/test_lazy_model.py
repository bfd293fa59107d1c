"""Device selection, quantization, lazy loading, and out-of-memory errors in one line."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from v2m.core import errors
from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device, choose_dtype, quantization_config

ROOT = Path(__file__).parents[2]


def test_choose_device_auto_takes_the_best_device() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device().type == choose_device("auto").type == best
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["gpu", "cuda:99", "meta", "", "cpu:1", "xpu", "two words"])
def test_absent_device_is_refused_with_the_list_of_present_ones(wanted: str) -> None:
    with pytest.raises(UsageError) as error_info:
        choose_device(wanted)
    assert str(error_info.value).startswith(f"device {wanted!r} is none of this machine's: give auto or ")
    assert str(error_info.value).endswith("cpu")


def test_cpu_dtype_is_float32() -> None:
    assert choose_dtype(torch.device("cpu")) == torch.float32


def test_no_bits_need_no_quantization_config() -> None:
    assert quantization_config(None) is None


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_are_refused_on_unsupported_devices(bits: Literal[4, 8]) -> None:
    with pytest.raises(UsageError, match=f"{bits}-bit weights do not run on mps"):
        quantization_config(bits, torch.device("mps"))


def test_missing_bitsandbytes_is_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        quantization_config(4)
    line = "No module named 'bitsandbytes': install it with `uv sync --inexact --extra quantized` or `pip install "
    assert errors.format_error(caught.value).startswith(line)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("bits", "kind", "close"), [(8, "Linear8bitLt", 0.03), (4, "Linear4bit", 0.25)])
def test_quantized_model_is_close_to_the_original_and_logs_nothing(
    llama: Path, bits: Literal[4, 8], kind: str, close: float, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import LlamaForCausalLM

    cpu = torch.device("cpu")
    ids = torch.arange(24)[None]
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        whole = LlamaForCausalLM.from_pretrained(llama, dtype=torch.float32)(ids).logits
        small = LlamaForCausalLM.from_pretrained(
            llama, dtype=torch.float32, device_map={"": cpu}, quantization_config=quantization_config(bits, cpu)
        )
        logits = small(ids).logits
    assert type(small.get_submodule("model.layers.0.mlp.up_proj")).__name__ == kind
    assert 0 < (logits - whole).norm() / whole.norm() < close
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


def test_lazy_model_loads_once_and_is_freed_on_release() -> None:
    loads = []

    def load() -> nn.Linear:
        loads.append(1)
        return nn.Linear(2, 2)

    lazy = LazyModel(load, "lower it")
    assert not lazy.loaded
    with lazy.model() as outer, lazy.model() as inner:
        assert inner is outer
    assert lazy.loaded
    with lazy.model() as again:
        assert again is outer
    last = weakref.ref(outer)
    del outer, inner, again
    lazy.release()
    assert last() is None
    assert (len(loads), lazy.loaded) == (1, False)
    with lazy.model() as fresh:
        assert isinstance(fresh, nn.Linear)
    assert len(loads) == 2


def test_other_errors_pass_unchanged_and_keep_the_model() -> None:
    lazy = LazyModel(lambda: nn.Linear(2, 2), "lower it")
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"), lazy.model() as model:
        model(torch.ones(1, 3))
    assert lazy.loaded


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …"),
            "the CUDA device has no room for another 2.5 GiB; lower it",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1610612736 bytes."),
            "this machine's memory has no room for another 1.5 GiB; lower it",
        ),
        (MemoryError(), "this machine's memory has no room left; lower it"),
    ],
)
def test_oom_message_has_size_device_and_one_remedy(error: BaseException, line: str) -> None:
    inner, outer = LazyModel(lambda: nn.Linear(2, 2), "lower it"), LazyModel(lambda: nn.Linear(2, 2), "another cure")

    def fail() -> None:
        with outer.model(), inner.model(), inner.model():
            raise error

    with pytest.raises(MemoryError) as error_info:
        fail()
    assert str(error_info.value) == line
    assert not inner.loaded
    assert not outer.loaded


HUNGRY = """
import resource, sys, weakref
import torch
from v2m.core import errors
from v2m.core.lazy_model import LazyModel

torch.set_num_threads(1)
torch.ones(8) @ torch.ones(8)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)


def load(size):
    return torch.nn.Parameter(torch.zeros(size << 18))  # MiB


def use(holder, size):
    with holder.model() as model:
        return (model[:1] + torch.zeros(size << 18)).sum().item()


for weights, activations in ((4000, 1), (90, 150), (90, 30)):
    holder = LazyModel(lambda: load(weights), "lower --batch")
    try:
        print(use(holder, activations), holder.loaded)
        holder.release()
    except Exception as error:
        print(errors.exit_code(error), errors.format_error(error), holder.loaded)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept on Linux only")
def test_oom_is_reported_and_memory_is_free_for_the_next_call() -> None:
    assert resource.RLIM_INFINITY in resource.getrlimit(resource.RLIMIT_AS)
    command = [sys.executable, "-c", HUNGRY]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == [
        "5 out of memory: this machine's memory has no room for another 3.91 GiB; lower --batch False",
        "5 out of memory: this machine's memory has no room for another 150 MiB; lower --batch False",
        "0.0 True",
    ], result.stderr
