"""Few weights beside many: nothing at first, and in the end what merged weights do."""

from __future__ import annotations

import pytest
import torch

from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch
from v2m.models.inference.decoder import Decoder
from v2m.models.lm import LMConfig
from v2m.models.lora import (
    BASE_LAYER,
    LoRAConfig,
    base_sha256,
    inject_lora,
    is_trainable,
    merge_state,
    merged_weights,
)
from v2m.models.music_model import MusicConfig, MusicModel
from v2m.models.patterns import apply_delays
from v2m.models.visual_conditioner import ConditionerConfig

LM = LMConfig(dim=32, num_layers=2, num_heads=4, codebook_size=64)
SEES = ConditionerConfig(num_layers=1, num_heads=2, head_dim=16, ffn_dim=32, vision_dim=24)


def made(seed: int = 0) -> MusicModel:
    torch.manual_seed(seed)
    return MusicModel(MusicConfig(LM, 16, conditioner=SEES)).eval()


def trainable(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if is_trainable(name)}


def logits(model: MusicModel) -> torch.Tensor:
    codes = apply_delays(
        torch.randint(64, (2, 4, 10), generator=torch.Generator().manual_seed(1)), LM.delay_pattern, LM.special_token_id
    )
    with torch.no_grad():
        return model(codes, None, None)  # of what stands for nothing


def stirred(model: MusicModel) -> None:
    """As training would, every weight that learns, and no other."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=random))


def test_at_first_nothing_has_changed_and_merged_it_does_what_adapted_it_does() -> None:
    model = made()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    before = logits(model)
    inject_lora(model, LoRAConfig(rank=4, alpha=12))
    assert torch.equal(logits(model), before)
    stirred(model)
    after = logits(model)
    assert (after - before).abs().max() > 0.1
    plain = made(seed=5)
    plain.load_state_dict(merge_state(base, trainable(model.state_dict()), LoRAConfig(rank=4, alpha=12).scale))
    assert (logits(plain) - after).abs().max() < 1e-5


def test_every_matrix_of_the_layers_is_adapted_and_nothing_else_of_the_language_model_learns() -> None:
    model = made()
    inject_lora(model, LoRAConfig(rank=4))
    layer = [name.partition("layers.1.")[2] for name, _ in model.lm.named_parameters() if BASE_LAYER in name]
    names = ("self_attention.query_key_value", "self_attention.out", "cross_attention.query")
    names += ("cross_attention.key_value", "cross_attention.out", "expand", "contract")
    assert {name for name in layer if name} == {f"{name}{BASE_LAYER}weight" for name in names}
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if is_trainable(name)}
    assert {name.partition(".")[0] for name in learning} == {"lm", "conditioner", "null_text", "null_video"}
    assert not [name for name in learning if name.startswith("lm.") and "lora_" not in name]


def test_what_autocast_multiplies_in_bfloat16_is_held_in_it_without_changing_the_result() -> None:
    found = []
    for dtype in (None, torch.bfloat16):
        model = made()
        torch.manual_seed(3)
        inject_lora(model, LoRAConfig(rank=4), dtype)
        stirred(model)
        held = {value.dtype for name, value in model.named_parameters() if BASE_LAYER in name}
        assert held == {dtype or torch.float32}
        assert all(value.dtype == torch.float32 for value in model.parameters() if value.requires_grad)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(logits(model))
    assert torch.equal(*found)


def test_a_decoder_that_reads_weights_writes_what_the_adapted_model_expects() -> None:
    model = made()
    inject_lora(model, LoRAConfig(rank=4), torch.bfloat16)
    stirred(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with merged_weights(model):
        decoder = Decoder(model.lm, precision="fp32")
    assert all(
        torch.equal(value, before[name]) and value.dtype == before[name].dtype
        for name, value in model.state_dict().items()
    )
    plain = made(seed=5)
    base = {name.replace(BASE_LAYER, "."): value.float() for name, value in before.items() if not is_trainable(name)}
    plain.load_state_dict(merge_state(base, trainable(before), LoRAConfig(rank=4).scale))
    found, wanted = (
        each.generate([CFGBranch(1.0, None)], 20, sampling=SamplingConfig(top_k=1), seeds=[0])
        for each in (decoder, Decoder(plain.lm, precision="fp32"))
    )
    assert torch.equal(found, wanted)
    other = Decoder(model.lm.to(torch.float32), precision="fp32").generate(
        [CFGBranch(1.0, None)], 20, sampling=SamplingConfig(top_k=1), seeds=[0]
    )
    assert not torch.equal(other, wanted)  # of what was adapted


def test_a_base_is_known_by_its_weights() -> None:
    state = made().state_dict()
    assert base_sha256(state) == base_sha256(made().state_dict()) != base_sha256(made(1).state_dict())
    state["conditioner.out.bias"] += 1  # which learns
    assert base_sha256(state) == base_sha256(made().state_dict())
    state["text.bias"][3] += 1e-6
    assert base_sha256(state) != base_sha256(made().state_dict())


def test_settings_that_cannot_be_are_told_together() -> None:
    with pytest.raises(ValueError, match=r"rank 0 .*alpha -1 .*dropout 1"):
        LoRAConfig(0, -1.0, 1.0)
