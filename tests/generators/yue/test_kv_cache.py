"""KVCache with row slices, padding and static shapes: outputs match a separate cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.generators.yue.tiny_llama import load
from v2m.generators.yue.decoder import LlamaDecoder, make_cache, row_bytes
from v2m.models.inference.kv_cache import KVCache

LENGTH = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    return load(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def make(model: LlamaForCausalLM, rows: int = 3, padding: tuple[int, ...] = ()) -> KVCache:
    return make_cache(model, rows, LENGTH, padding=padding)


def tokens(rows: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(45334, 53526, (rows, count), generator=torch.Generator().manual_seed(seed))


def spoil(cache: KVCache, rows: slice, positions: slice) -> None:
    for keys, values in cache.buffers:
        keys[rows, :, positions] = 1e3
        values[rows, :, positions] = -1e3


def test_row_slice_updates_only_its_rows(model: LlamaForCausalLM) -> None:
    ids, cache, alone = tokens(3, 8), make(model), make(model, rows=2)
    step, only = LlamaDecoder(model, cache), LlamaDecoder(model, alone)
    step(ids[:, :5])
    only(ids[:2, :5])
    before = [keys[2].clone() for keys, _ in cache.buffers]
    cache.rows = slice(0, 2)
    torch.testing.assert_close(step(ids[:2, 5:]), only(ids[:2, 5:]))
    for (keys, _), kept in zip(cache.buffers, before, strict=True):
        assert torch.equal(keys[2], kept)
        assert keys[:2, :, 5:8].abs().amin() > 0


def test_unfreezing_at_a_lower_length_discards_later_positions(model: LlamaForCausalLM) -> None:
    cache, fresh = make(model), make(model)
    step, other = LlamaDecoder(model, cache), LlamaDecoder(model, fresh)
    step(tokens(3, 6))
    other(tokens(3, 6))
    step(tokens(3, 9, seed=1))
    cache.unfreeze(6)
    assert torch.equal(step(tokens(3, 2, seed=2)), other(tokens(3, 2, seed=2)))


@pytest.mark.parametrize("static", [False, True])
def test_padded_row_matches_unpadded_decoding(model: LlamaForCausalLM, static: bool) -> None:
    ids, cache, alone = tokens(2, 10), make(model, 2, (0, 4)), make(model, 1)
    step, only = LlamaDecoder(model, cache), LlamaDecoder(model, alone)
    step(ids[:, :7])
    only(ids[1:, 4:7])
    if static:
        cache.freeze()
    for part, own in zip(ids[:, 7:].split([2, 1], dim=1), ids[1:, 7:].split([2, 1], dim=1), strict=True):
        torch.testing.assert_close(step(part)[1:], only(own))


@pytest.mark.parametrize("static", [False, True])
def test_padding_and_unused_positions_do_not_affect_the_output(model: LlamaForCausalLM, static: bool) -> None:
    result = []
    for spoilt in (False, True):
        cache = make(model, 2, (0, 4))
        step = LlamaDecoder(model, cache)
        step(tokens(2, 7))
        if static:
            cache.freeze()
        if spoilt:
            spoil(cache, slice(1, 2), slice(0, 4))
            spoil(cache, slice(0, 2), slice(7, LENGTH))
        result.append(torch.cat([step(tokens(2, 2, seed=1)), step(tokens(2, 1, seed=2))]))
    assert torch.isfinite(result[0]).all()
    assert torch.equal(result[0], result[1])


def test_static_cache_matches_the_growing_cache(model: LlamaForCausalLM) -> None:
    growing, static = make(model), make(model)
    step, other = LlamaDecoder(model, growing), LlamaDecoder(model, static)
    step(tokens(3, 7))
    other(tokens(3, 7))
    static.freeze()
    place = static.position
    for seed, count in enumerate((2, 1, 1, 2)):
        torch.testing.assert_close(step(tokens(3, count, seed)), other(tokens(3, count, seed)))
    assert place is static.position, "a graph would go on reading the old tensor"
    assert place.item() == growing.seq_length == 13


@pytest.mark.parametrize("static", [False, True])
def test_position_ids_and_attention_mask_account_for_padding(model: LlamaForCausalLM, static: bool) -> None:
    cache = make(model, 2, (0, 2))
    if static:
        cache.freeze()
    assert cache.position_ids(cache.next_positions(4)).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    visible = (cache.attention_mask(cache.next_positions(4)) == 0).int()[:, 0]
    assert visible[0, :, :4].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert visible[1, :, :4].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert not visible[:, :, 4:].any()
    cache.advance(4)
    assert cache.position_ids(cache.next_positions(1)).tolist() == [[4], [2]]
    assert (cache.attention_mask(cache.next_positions(1)) == 0).int()[1, 0, 0, :5].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("static", [False, True])
def test_padding_of_a_row_can_be_changed_repeatedly(model: LlamaForCausalLM, static: bool) -> None:
    """As the row without a prompt is, at each section; what the first row then reads alone is not for it."""
    cache = make(model, 2)
    step, places, start = LlamaDecoder(model, cache), [], 0
    for seed, read in enumerate((5, 3)):
        cache.rows = slice(0, 1)
        step(tokens(1, read, seed))
        cache.rows = slice(0, 2)
        start += read
        cache.set_padding(1, start)
        if static:
            cache.freeze()
        places.append(cache.position)
        ids, only = tokens(2, 4, seed + 7), LlamaDecoder(model, make(model, 1))
        for part, own in zip(ids.split([1, 2, 1], dim=1), ids[1:].split([1, 2, 1], dim=1), strict=True):
            torch.testing.assert_close(step(part)[1:], only(own))
        start += 4
        if static:
            cache.unfreeze(start)
        assert cache.seq_length == start
    assert places[0] is places[1], "a graph would go on reading the old tensor"


def test_full_cache_raises_an_assertion_error(model: LlamaForCausalLM) -> None:
    step = LlamaDecoder(model, full := make(model))
    step(tokens(3, LENGTH))
    assert full.seq_length == LENGTH
    with pytest.raises(AssertionError, match="25 positions in a cache of 24"):
        step(tokens(3, 1))


def test_row_bytes_matches_the_allocated_size(model: LlamaForCausalLM) -> None:
    cache = make(model)
    allocated = sum(item.nbytes for item in cache.buffers)
    assert allocated == 3 * row_bytes(model.config, LENGTH, torch.float32)
