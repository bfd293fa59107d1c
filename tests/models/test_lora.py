"""LoRA: identity at initialization, trainable parameters and merged weights."""

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
CONDITIONER = ConditionerConfig(num_layers=1, num_heads=2, head_dim=16, ffn_dim=32, vision_dim=24)


def make_model(seed: int = 0) -> MusicModel:
    torch.manual_seed(seed)
    return MusicModel(MusicConfig(LM, 16, conditioner=CONDITIONER)).eval()


def trainable(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if is_trainable(name)}


def logits(model: MusicModel) -> torch.Tensor:
    codes = apply_delays(
        torch.randint(64, (2, 4, 10), generator=torch.Generator().manual_seed(1)), LM.delay_pattern, LM.special_token_id
    )
    with torch.no_grad():
        return model(codes, None, None)  # of what stands for nothing


def perturb(model: MusicModel) -> None:
    """As training would, every weight that learns, and no other."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=random))


def test_lora_is_initially_identity_and_merged_weights_match_the_adapter() -> None:
    model = make_model()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    before = logits(model)
    inject_lora(model, LoRAConfig(rank=4, alpha=12))
    assert torch.equal(logits(model), before)
    perturb(model)
    after = logits(model)
    assert (after - before).abs().max() > 0.1
    plain = make_model(seed=5)
    plain.load_state_dict(merge_state(base, trainable(model.state_dict()), LoRAConfig(rank=4, alpha=12).scale))
    assert (logits(plain) - after).abs().max() < 1e-5


def test_lora_adapts_all_layer_matrices_and_freezes_the_rest_of_the_lm() -> None:
    model = make_model()
    inject_lora(model, LoRAConfig(rank=4))
    layer = [name.partition("layers.1.")[2] for name, _ in model.lm.named_parameters() if BASE_LAYER in name]
    names = ("self_attention.query_key_value", "self_attention.out", "cross_attention.query")
    names += ("cross_attention.key_value", "cross_attention.out", "expand", "contract")
    assert {name for name in layer if name} == {f"{name}{BASE_LAYER}weight" for name in names}
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if is_trainable(name)}
    assert {name.partition(".")[0] for name in learning} == {"lm", "conditioner", "null_text", "null_video"}
    assert not [name for name in learning if name.startswith("lm.") and "lora_" not in name]


def test_bfloat16_base_weights_do_not_change_the_autocast_output() -> None:
    result = []
    for dtype in (None, torch.bfloat16):
        model = make_model()
        torch.manual_seed(3)
        inject_lora(model, LoRAConfig(rank=4), dtype)
        perturb(model)
        held = {value.dtype for name, value in model.named_parameters() if BASE_LAYER in name}
        assert held == {dtype or torch.float32}
        assert all(value.dtype == torch.float32 for value in model.parameters() if value.requires_grad)
        with torch.autocast("cpu", torch.bfloat16):
            result.append(logits(model))
    assert torch.equal(*result)


def test_decoder_with_merged_weights_matches_the_adapted_model() -> None:
    model = make_model()
    inject_lora(model, LoRAConfig(rank=4), torch.bfloat16)
    perturb(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with merged_weights(model):
        decoder = Decoder(model.lm, precision="fp32")
    assert all(
        torch.equal(value, before[name]) and value.dtype == before[name].dtype
        for name, value in model.state_dict().items()
    )
    plain = make_model(seed=5)
    base = {name.replace(BASE_LAYER, "."): value.float() for name, value in before.items() if not is_trainable(name)}
    plain.load_state_dict(merge_state(base, trainable(before), LoRAConfig(rank=4).scale))
    result, expected = (
        item.generate([CFGBranch(1.0, None)], 20, sampling=SamplingConfig(top_k=1), seeds=[0])
        for item in (decoder, Decoder(plain.lm, precision="fp32"))
    )
    assert torch.equal(result, expected)
    other = Decoder(model.lm.to(torch.float32), precision="fp32").generate(
        [CFGBranch(1.0, None)], 20, sampling=SamplingConfig(top_k=1), seeds=[0]
    )
    assert not torch.equal(other, expected)  # of what was adapted


def test_base_sha256_depends_only_on_frozen_weights() -> None:
    state = make_model().state_dict()
    assert base_sha256(state) == base_sha256(make_model().state_dict()) != base_sha256(make_model(1).state_dict())
    state["conditioner.out.bias"] += 1  # which learns
    assert base_sha256(state) == base_sha256(make_model().state_dict())
    state["text.bias"][3] += 1e-6
    assert base_sha256(state) != base_sha256(make_model().state_dict())


def test_invalid_lora_config_values_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"rank 0 .*alpha -1 .*dropout 1"):
        LoRAConfig(0, -1.0, 1.0)
