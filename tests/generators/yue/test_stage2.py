"""Stage 2 with one KV cache matches the published loop without a cache, token for token."""

from __future__ import annotations

import gc
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.generators.yue.tiny_llama import load
from tests.reference.yue_stage2 import refine_published
from v2m.core.errors import DependencyError
from v2m.generators.yue.stage2 import _even_batches, _Window, cache_length, refine
from v2m.generators.yue.tokenizer import CODEBOOK_SIZE, NUM_CODEBOOKS
from v2m.models.inference.kv_cache import KVCache

WINDOW = 12
LENGTHS = (WINDOW * 2 + 5, WINDOW, 1, 11, 0, WINDOW + 1)  # tails of 5, 1, 11 and 1 frames, stems without one, and empty


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    return load(tmp_path_factory.mktemp("stage2"))


@pytest.fixture(scope="module")
def streams() -> list[Tensor]:
    random = torch.Generator().manual_seed(7)
    return [torch.randint(CODEBOOK_SIZE, (count,), generator=random) for count in LENGTHS]


@pytest.fixture(scope="module")
def published(model: LlamaForCausalLM, streams: list[Tensor]) -> list[Tensor]:
    return [
        refine_published(model, stream, WINDOW) if len(stream) else torch.empty(NUM_CODEBOOKS, 0, dtype=torch.long)
        for stream in streams
    ]


@pytest.mark.parametrize("graph", [False, True], ids=["growing", "fixed"])
@pytest.mark.parametrize("batch", [None, 1, 2, 3, 7])
def test_refined_codes_match_the_published_loop_for_any_batch_size(
    model: LlamaForCausalLM, streams: list[Tensor], published: list[Tensor], batch: int | None, graph: bool
) -> None:
    result = refine(model, streams, window=WINDOW, batch_size=batch, use_graph=graph)
    assert [codes.shape for codes in result] == [(NUM_CODEBOOKS, count) for count in LENGTHS]
    for codes, expected in zip(result, published, strict=True):
        assert torch.equal(codes, expected)


def test_first_codebook_is_kept_and_the_others_are_valid_codes(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    for stream, codes in zip(streams, refine(model, streams, window=WINDOW), strict=True):
        assert torch.equal(codes[0], stream)
        assert ((codes >= 0) & (codes < CODEBOOK_SIZE)).all()
        assert len(stream) < WINDOW or len(codes[1:].unique()) > 3 * len(stream), "no test with few codes means much"


def test_each_token_is_processed_once_with_seven_forwards_per_frame(
    model: LlamaForCausalLM, streams: list[Tensor]
) -> None:
    lengths: list[int] = []
    layer = model.get_submodule("model.layers.0.mlp.act_fn")
    hook = layer.register_forward_hook(lambda _, given, out: lengths.append(out.shape[1]))
    try:
        refine(model, streams[1:2], window=WINDOW)
    finally:
        hook.remove()
    assert len(lengths) == 7 * WINDOW
    assert sum(lengths) == 3 + WINDOW + 8 * WINDOW - 1 <= cache_length(WINDOW) < 3 + 9 * WINDOW + 7


def test_finished_windows_are_removed_from_the_batch(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    rows: list[int] = []
    layer = model.get_submodule("model.layers.0.mlp.act_fn")
    hook = layer.register_forward_hook(lambda _, given, out: rows.append(out.shape[0]))
    try:
        refine(model, [streams[0][:3], streams[1][:1]], window=WINDOW)
    finally:
        hook.remove()
    assert rows == [2] * 7 + [1] * 14


def test_windows_are_independent_of_each_other(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    changed = streams[0].clone()
    changed[WINDOW:] = (changed[WINDOW:] + 1) % CODEBOOK_SIZE
    before, after = refine(model, [streams[0], changed], window=WINDOW)
    assert torch.equal(before[:, :WINDOW], after[:, :WINDOW])
    assert not torch.equal(before[1:, WINDOW:], after[1:, WINDOW:])


def test_progress_is_monotonic_and_ends_at_one(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    fractions: list[float] = []

    def tell(fraction: float) -> None:
        fractions.append(fraction)

    refine(model, streams, window=WINDOW, batch_size=3, progress=tell)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert 0 < fractions[0] < 0.1


def test_bfloat16_tokens_mostly_match_float32(tmp_path: Path) -> None:
    half, whole = load(tmp_path, torch.bfloat16), load(tmp_path, torch.bfloat16).float()
    stream = torch.arange(40) * 13
    result, expected = refine(half, [stream], window=1)[0], refine(whole, [stream], window=1)[0]
    assert half.dtype == torch.bfloat16
    assert (result[1] == expected[1]).float().mean() > 0.8  # from then on, one other token leads elsewhere


def test_vocabulary_size_mismatch_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="of YuE: 32000 tokens, not 53526"):
        refine(load(tmp_path, vocab=32000), [torch.zeros(3, dtype=torch.long)])


@pytest.mark.parametrize(("count", "most"), [(7, 3), (5, 5), (100, 48), (1, 4), (0, 4)])
def test_batches_are_even_and_complete(count: int, most: int) -> None:
    windows = [_Window(0, start, torch.zeros(1)) for start in range(count)]
    batches = list(_even_batches(windows, most))
    assert [window for batch in batches for window in batch] == windows
    sizes = [len(batch) for batch in batches] or [0]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_kv_cache_is_freed_before_the_next_batch(model: LlamaForCausalLM) -> None:
    """Each model takes most of the GPU memory; the garbage collector is disabled."""
    alive: list[int] = []

    def look(fraction: float) -> None:
        alive.append(sum(type(item) is KVCache for item in gc.get_objects()))

    gc.collect()
    gc.disable()
    try:
        refine(model, [torch.arange(5)], window=2, batch_size=1, progress=look)
        left = sum(type(item) is KVCache for item in gc.get_objects())
    finally:
        gc.enable()
    assert set(alive) == {1}
    assert left == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_graph_tokens_match_the_published_loop(
    model: LlamaForCausalLM, streams: list[Tensor], published: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    cuda_model = deepcopy(model)
    torch.nn.Module.to(cuda_model, "cuda")
    result = refine(cuda_model, streams, window=WINDOW)
    assert not caplog.records
    for codes, expected in zip(result, published, strict=True):
        assert torch.equal(codes, expected)
