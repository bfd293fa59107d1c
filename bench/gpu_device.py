"""Limits of a GPU: bandwidth, products, launches, attention: `python -m bench.gpu_device`.

The rates that shares are taken of elsewhere: a copy within the device's memory, products of bfloat16 matrices, and the
cost of launching a tiny kernel. Then PyTorch's attention kernels on the shapes of the models, forward alone and with
the backward pass for training; a kernel that does not take a shape is left out. Every line is one JSON object, the last
one with all figures.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention, softmax

from bench import roofline
from bench.gpu_figures import Figures, attention_backends
from tests.fixtures import flops


class Shape(NamedTuple):
    """An attention of `batch` times `heads` with `queries` over `keys` of `dim` numbers."""

    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    mask: str = ""  # "", "causal", or "additive"
    backward: bool = False


SHAPES = {
    "decode_self": Shape(2, 16, 1, 1024, 64, "additive"),
    "decode_cross": Shape(1, 16, 1, 3000, 64),
    "decode_self_b16": Shape(32, 16, 1, 1024, 64, "additive"),
    "decode_cross_b16": Shape(16, 16, 1, 3000, 64),
    "prefill_self": Shape(2, 16, 512, 1024, 64, "additive"),
    "prefill_cross": Shape(1, 16, 512, 3000, 64),
    "train_self": Shape(8, 16, 1503, 1503, 64, "causal", backward=True),
    "train_cross": Shape(8, 16, 1503, 360, 64, "additive", backward=True),
    "diffusion_self": Shape(2, 16, 1024, 1024, 64),
    "yue_decode": Shape(2, 4, 8, 4096, 128, "additive"),
}


def measure_attention(shape: Shape, device: torch.device, times: int) -> dict[str, float]:
    """Return the milliseconds of each kernel that takes the shape, and of two plain products."""
    query, key, value = (
        torch.randn(shape.batch, shape.heads, length, shape.dim, device=device, dtype=torch.bfloat16).requires_grad_(
            shape.backward
        )
        for length in (shape.queries, shape.keys, shape.keys)
    )
    mask = None
    if shape.mask == "additive":
        mask = torch.zeros(shape.batch, 1, shape.queries, shape.keys, device=device, dtype=torch.bfloat16)

    def fused() -> Tensor:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=shape.mask == "causal")

    def products() -> Tensor:
        scores = query @ key.mT
        return softmax(scores if mask is None else scores + mask, dim=-1) @ value

    def once() -> None:
        out = fused()
        if shape.backward:
            out.backward(torch.ones_like(out))

    milliseconds: dict[str, float] = {}
    for name, backends in attention_backends().items():
        try:
            with sdpa_kernel(backends):
                milliseconds[name] = 1000 * roofline.median_seconds(once, device, times, 10)
        except RuntimeError:  # "No available kernel"
            continue
    if shape.queries == 1:
        milliseconds["products"] = 1000 * roofline.median_seconds(products, device, times, 10)
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="small sizes, to try this script")
    parser.add_argument("--times", type=int, help="groups of ten calls of each attention; 5, or 2 with --small")
    args = parser.parse_args()
    times = args.times or (2 if args.small else 5)
    device, figures = torch.device(args.device), Figures()
    torch.manual_seed(0)
    figures.add(**roofline.describe(device))
    figures.add(bandwidth_gb_s=roofline.copy_bandwidth(device, args.small) / 1e9)
    measured = roofline.product_rate(device, torch.bfloat16, args.small)
    published = flops.peak(str(figures.values["device"]))
    figures.add(bf16_tflops=measured / 1e12, bf16_published_tflops=published and published / 1e12)
    figures.add(bf16_share_of_published=None if published is None else measured / published)
    figures.add(launch_us=1e6 * roofline.launch_seconds(device))
    for name, shape in SHAPES.items():
        with figures.attempt(name):
            used = shape._replace(queries=min(shape.queries, 16), keys=min(shape.keys, 32)) if args.small else shape
            milliseconds = measure_attention(used, device, times)
            figures.add(attention_ms={name: milliseconds})
            figures.add(fastest_attention={name: min(milliseconds, key=lambda kind: milliseconds[kind], default="")})


if __name__ == "__main__":
    main()
