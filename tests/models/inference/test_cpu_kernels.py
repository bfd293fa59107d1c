"""The compiled kernels against plain products and attention, on every instruction set that this machine can run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from v2m.core.errors import UsageError
from v2m.models.inference import cpu_kernels, kernel_choice
from v2m.models.inference.cpu_kernels import KINDS, ORDERS, CPUKernels, Order, QuantizedKV, WeightKind
from v2m.models.inference.decoder import Decoder
from v2m.models.inference.fast_linear import quantize_int4, quantize_int8
from v2m.models.lm import LM, LMConfig

CAPABILITIES = ["DEFAULT", "AVX2", "AVX512"]  # PyTorch's names, oldest first


def build(capability: str) -> CPUKernels:
    best = torch.backends.cpu.get_cpu_capability()
    if best not in CAPABILITIES or CAPABILITIES.index(capability) > CAPABILITIES.index(best):
        pytest.skip(f"this processor runs {best}")
    kernels = cpu_kernels._load(capability)
    if kernels is None:
        pytest.skip("no C compiler, or another system than Linux")
    return kernels


@pytest.fixture(scope="module", params=CAPABILITIES)
def kernels(request: pytest.FixtureRequest) -> CPUKernels:
    return build(request.param)


def relative_error(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("outputs", "inputs"), [(37, 100), (64, 256), (30, 31), (700, 1200)])
def test_products_are_those_of_the_rounded_weight(
    kernels: CPUKernels, kind: WeightKind, order: Order, outputs: int, inputs: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    weight[1] = 0
    packed = kernels.pack(weight, kind, order)
    rounded = kernels.unpack(packed)
    assert torch.equal(rounded, kernels.unpack(kernels.pack(weight, kind)))
    for rows in (1, 2, 3, 4, 9):
        x, residual = torch.randn(rows, inputs, generator=generator), torch.randn(rows, outputs, generator=generator)
        x[0] *= 1000  # each vector has scales of its own
        out = kernels.linear(x, packed)
        for row in range(rows):
            bound = 1e-5 if kind in {"fp32", "bf16"} else 0.02
            assert relative_error(out[row], x[row] @ rounded.T) < bound
        assert torch.allclose(kernels.linear(x, packed, residual=residual), out + residual, rtol=1e-6, atol=1e-5)
        alone = kernels.linear(x[-1:].contiguous(), packed)
        assert torch.equal(alone[0], out[-1]), "a vector's result depends on its neighbors"


def test_layer_norm_and_gelu_are_those_of_pytorch(kernels: CPUKernels) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = 5 + 3 * torch.randn(2, 100, generator=generator), torch.randn(24, 100, generator=generator)
    norm = cpu_kernels.LayerNorm(torch.rand(100, generator=generator), torch.rand(100, generator=generator), 1e-5)
    packed = kernels.pack(weight, "fp32")
    normed = functional.layer_norm(x, (100,), norm.weight, norm.bias, norm.epsilon)
    expected = functional.gelu(normed @ weight.T / 4)
    result = kernels.linear(x, kernels.pack(weight / 4, "fp32"), norm=norm, gelu=True, residual=torch.ones(2, 24))
    assert torch.allclose(result - 1, expected, atol=3e-6)
    assert torch.allclose(kernels.linear(x, packed, norm=norm), normed @ weight.T, atol=1e-5)
    steps = torch.linspace(-9, 9, 4000)[:, None]  # the GELU alone, over all of its range
    curve = torch.cat(
        [kernels.linear(part, kernels.pack(torch.ones(1, 1), "fp32"), gelu=True) for part in steps.split(9)]
    )
    assert torch.allclose(curve, functional.gelu(steps), atol=2e-6)


def test_bytes_do_not_saturate(kernels: CPUKernels) -> None:
    """The largest weights times the largest vectors: sums of two products are beyond 16 bits."""
    for sign in (1.0, -1.0):
        packed, x = kernels.pack(torch.ones(4, 512), "int8"), torch.full((2, 512), sign)
        assert torch.allclose(kernels.linear(x, packed), torch.full((2, 4), 512 * sign), rtol=1e-5)


def test_weights_are_rounded_to_the_nearest(kernels: CPUKernels) -> None:
    weight = torch.randn(40, 256, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kernels.unpack(kernels.pack(weight, "fp32")), weight)
    assert torch.equal(kernels.unpack(kernels.pack(weight, "bf16")), weight.bfloat16().float())
    values, scales = quantize_int8(weight)
    assert torch.allclose(kernels.unpack(kernels.pack(weight, "int8")), values * scales[:, None], atol=1e-6)
    values, scales = quantize_int4(weight)
    expected = (values.float().view(40, 8, 32) * scales[..., None]).flatten(1)
    difference = (kernels.unpack(kernels.pack(weight, "int4")) - expected).abs()
    # scales in bfloat16 move some numbers that lie between two steps to the other one
    assert float(difference.median()) < 0.004 * float(scales.abs().max()) * 8
    assert float(difference.max()) < 1.1 * float(scales.abs().max())


@pytest.mark.parametrize(("groups", "queries", "dim", "length"), [(16, 1, 64, 100), (4, 3, 32, 17), (2, 1, 128, 300)])
def test_attention_over_the_cache_is_that_over_what_was_written(
    kernels: CPUKernels, groups: int, queries: int, dim: int, length: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 2, groups, length, dim, generator=generator).unbind()
    query = torch.randn(2, groups * queries + 1, dim, generator=generator)[:, 1:] * 0.3  # rows lie apart
    mask = torch.zeros(2, length)
    mask[1, : length // 2] = -torch.inf
    cache = QuantizedKV(2, groups, length + 20, dim)
    kernels.write_cache(cache, keys[:, :, :-1].contiguous(), values[:, :, :-1].contiguous(), 0)
    last = keys[:, :, -1].contiguous(), values[:, :, -1].contiguous()
    shape = (2, groups, queries, dim)
    for given in (None, mask):
        out = kernels.attention(query, cache, length, new=last, mask=given)
        expected = functional.scaled_dot_product_attention(
            query.reshape(shape), keys, values, attn_mask=None if given is None else given[:, None, None], scale=1.0
        )
        assert relative_error(out.view(shape), expected) < 0.02
        assert torch.equal(kernels.attention(query, cache, length, mask=given), out), "reading alone differs"


def test_queries_are_finer_than_keys(kernels: CPUKernels) -> None:
    """Keys that 8 bits hold exactly give the scores of float32."""
    keys = torch.randint(-127, 128, (1, 1, 50, 64), generator=torch.Generator().manual_seed(0)).float() / 127
    keys[..., 0] = 1.0
    values = torch.eye(64)[None, None, :50].contiguous()
    query = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(1))
    cache = QuantizedKV(1, 1, 50, 64)
    kernels.write_cache(cache, keys, values, 0)
    weights = kernels.attention(query, cache, 50)[0, 0, :50]
    expected = (query[0] @ keys[0, 0].T).softmax(dim=-1)[0]
    assert torch.allclose(weights, expected, rtol=1e-3, atol=2e-5)


def test_memory_is_zero_aligned_and_of_one_tensor_alone() -> None:
    sizes = [(3,), (5, 7), (cpu_kernels.SLAB_BYTES // 4 + 1,), (1,)] * 3
    tensors = [cpu_kernels.allocate(size, torch.float32) for size in sizes]
    for number, tensor in enumerate(tensors):
        assert tensor.data_ptr() % cpu_kernels.CACHE_LINE == 0
        assert not tensor.any()
        tensor.fill_(number + 1)
    assert all(bool((tensor == number + 1).all()) for number, tensor in enumerate(tensors))
    assert tensors[2].data_ptr() % cpu_kernels.PAGE_BYTES == 0, "large tensors begin at a large page"


def test_library_is_kept_private_and_built_anew_for_other_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("DEFAULT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = ["cc", "-shared", "-fPIC"]
    first = cpu_kernels._build("int one(void) { return 1; }", command)
    written = first.stat().st_mtime_ns
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    assert cpu_kernels._build("int one(void) { return 1; }", command).stat().st_mtime_ns == written
    assert cpu_kernels._build("int one(void) { return 2; }", command) != first
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".so", ".so"]


@pytest.mark.parametrize("obstacle", ["no compiler", "broken compiler", "switched off"])
def test_decoding_works_without_the_kernels(tmp_path: Path, obstacle: str) -> None:
    """In a process of its own: a library stays loaded."""
    program = tmp_path / "bin" / "cc"
    program.parent.mkdir()
    if obstacle == "broken compiler":
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    code = (
        "import torch\n"
        "from v2m.models.inference import cpu_kernels, kernel_choice\n"
        "assert cpu_kernels.load_kernels() is None\n"
        "kernel = kernel_choice.choose_kernel('int4', torch.nn.Linear(1, 1), torch.device('cpu'))\n"
        "print(kernel.name, kernel.make(torch.ones(20, 40), 2)(torch.ones(3, 40)).sum().item())\n"
    )
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    if obstacle == "switched off":
        variables["V2M_CPU_KERNELS"] = "0"
    else:
        variables["PATH"] = str(program.parent)
    result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["torch", "2400.0"], result.stderr


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_kernels_that_are_offered_run_on_older_processors(capability: str) -> None:
    """With the libraries' own switches: bfloat16 of oneDNN, for one, needs AVX-512."""
    code = (
        "import torch\n"
        "from v2m.models.inference.kernel_choice import available_kernels\n"
        "for precision in ('fp32', 'bf16', 'int8', 'int4'):\n"
        "    for kernel in available_kernels(precision, torch.device('cpu')):\n"
        "        layer = kernel.make(torch.eye(32), 2)\n"
        "        x = torch.linspace(-1, 1, 64, dtype=kernel.dtype).view(2, 32)\n"
        "        assert (layer(x) - x).abs().max() < 0.2, (precision, kernel.name)\n"
    )
    isa = {"avx2": "AVX2", "default": "SSE41"}[capability]
    variables = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": isa}
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)


def test_fastest_kernel_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(kernel: kernel_choice.Kernel, precision: str) -> float:
        measured.append(f"{precision} {kernel.name}")
        return 0.0 if kernel.name == "torch" else 1.0

    monkeypatch.setattr(kernel_choice, "measure_kernel", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    large, small = (nn.Linear(size, kernel_choice.MIN_LARGE_PARAMETERS // 4, device="meta") for size in (4, 1))
    cpu = torch.device("cpu")
    for _ in range(2):
        kernel_choice._choose.cache_clear()
        assert kernel_choice.choose_kernel("bf16", large, cpu).name == "torch"
    names = [kernel.name for kernel in kernel_choice.available_kernels("bf16", cpu)]
    assert measured == [f"bf16 {name}" for name in names]
    assert kernel_choice.choose_kernel("bf16", small, cpu).name == names[0], "a small model is not measured for"
    kernel_choice._choose.cache_clear()


def test_4_bits_are_refused_on_other_devices_than_the_cpu() -> None:
    with pytest.raises(UsageError, match="int8"):
        Decoder(LM(LMConfig(dim=32, num_layers=1, num_heads=2)).to("meta"), precision="int4")
