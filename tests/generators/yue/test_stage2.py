"""Stage 2 with one cache equals, token for token, the published loop without a cache."""

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
def test_however_the_windows_are_batched_the_tokens_are_those_of_the_published_loop(
    model: LlamaForCausalLM, streams: list[Tensor], published: list[Tensor], batch: int | None, graph: bool
) -> None:
    found = refine(model, streams, window=WINDOW, batch_size=batch, use_graph=graph)
    assert [codes.shape for codes in found] == [(NUM_CODEBOOKS, count) for count in LENGTHS]
    for codes, expected in zip(found, published, strict=True):
        assert torch.equal(codes, expected)


def test_first_codes_are_kept_and_the_others_are_codes_that_differ(
    model: LlamaForCausalLM, streams: list[Tensor]
) -> None:
    for stream, codes in zip(streams, refine(model, streams, window=WINDOW), strict=True):
        assert torch.equal(codes[0], stream)
        assert ((codes >= 0) & (codes < CODEBOOK_SIZE)).all()
        assert len(stream) < WINDOW or len(codes[1:].unique()) > 3 * len(stream), "no test with few codes means much"


def test_each_token_passes_through_the_model_once_in_seven_forwards_a_frame(
    model: LlamaForCausalLM, streams: list[Tensor]
) -> None:
    seen: list[int] = []
    layer = model.get_submodule("model.layers.0.mlp.act_fn")
    hook = layer.register_forward_hook(lambda _, given, out: seen.append(out.shape[1]))
    try:
        refine(model, streams[1:2], window=WINDOW)
    finally:
        hook.remove()
    assert len(seen) == 7 * WINDOW
    assert sum(seen) == 3 + WINDOW + 8 * WINDOW - 1 <= cache_length(WINDOW) < 3 + 9 * WINDOW + 7


def test_rows_whose_window_has_ended_are_dropped(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    rows: list[int] = []
    layer = model.get_submodule("model.layers.0.mlp.act_fn")
    hook = layer.register_forward_hook(lambda _, given, out: rows.append(out.shape[0]))
    try:
        refine(model, [streams[0][:3], streams[1][:1]], window=WINDOW)
    finally:
        hook.remove()
    assert rows == [2] * 7 + [1] * 14


def test_a_window_depends_on_nothing_outside_it(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    changed = streams[0].clone()
    changed[WINDOW:] = (changed[WINDOW:] + 1) % CODEBOOK_SIZE
    before, after = refine(model, [streams[0], changed], window=WINDOW)
    assert torch.equal(before[:, :WINDOW], after[:, :WINDOW])
    assert not torch.equal(before[1:, WINDOW:], after[1:, WINDOW:])


def test_progress_rises_to_one(model: LlamaForCausalLM, streams: list[Tensor]) -> None:
    told: list[float] = []

    def tell(fraction: float) -> None:
        told.append(fraction)

    refine(model, streams, window=WINDOW, batch_size=3, progress=tell)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert 0 < told[0] < 0.1


def test_bfloat16_weights_and_memory_give_the_tokens_of_the_same_weights_nearly_always(tmp_path: Path) -> None:
    half, whole = load(tmp_path, torch.bfloat16), load(tmp_path, torch.bfloat16).float()
    stream = torch.arange(40) * 13
    found, expected = refine(half, [stream], window=1)[0], refine(whole, [stream], window=1)[0]
    assert half.dtype == torch.bfloat16
    assert (found[1] == expected[1]).float().mean() > 0.8  # from then on, one other token leads elsewhere


def test_a_model_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="of YuE: 32000 tokens, not 53526"):
        refine(load(tmp_path, vocab=32000), [torch.zeros(3, dtype=torch.long)])


@pytest.mark.parametrize(("count", "most"), [(7, 3), (5, 5), (100, 48), (1, 4), (0, 4)])
def test_batches_are_even_and_lose_nothing(count: int, most: int) -> None:
    windows = [_Window(0, start, torch.zeros(1)) for start in range(count)]
    batches = list(_even_batches(windows, most))
    assert [window for batch in batches for window in batch] == windows
    sizes = [len(batch) for batch in batches] or [0]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_one_batch_is_forgotten_before_the_next_is_laid_out(model: LlamaForCausalLM) -> None:
    """Each model takes most of the GPU memory; the garbage collector is disabled."""
    alive: list[int] = []

    def look(fraction: float) -> None:
        alive.append(sum(type(each) is KVCache for each in gc.get_objects()))

    gc.collect()
    gc.disable()
    try:
        refine(model, [torch.arange(5)], window=2, batch_size=1, progress=look)
        left = sum(type(each) is KVCache for each in gc.get_objects())
    finally:
        gc.enable()
    assert set(alive) == {1}
    assert left == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_captured_frames_give_the_same_tokens(
    model: LlamaForCausalLM, streams: list[Tensor], published: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    there = deepcopy(model)
    torch.nn.Module.to(there, "cuda")
    found = refine(there, streams, window=WINDOW)
    assert not caplog.records
    for codes, expected in zip(found, published, strict=True):
        assert torch.equal(codes, expected)
