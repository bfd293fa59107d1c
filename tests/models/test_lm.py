"""Properties of the language model for any weights; parity with MusicGen is tested in parity/."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from v2m.models.conditioning import Condition, concat
from v2m.models.lm import LM, LMConfig

TINY = {"dim": 16, "num_layers": 2, "num_heads": 2, "num_codebooks": 2, "codebook_size": 24}


def make_lm(seed: int = 0, **settings: object) -> LM:
    torch.manual_seed(seed)
    return LM(LMConfig(**TINY | settings))  # pyright: ignore[reportArgumentType]


def codes(steps: int = 9) -> Tensor:
    return torch.randint(25, (2, 2, steps), generator=torch.Generator().manual_seed(1))


def memory(tokens: int = 5, seed: int = 2) -> Condition:
    return Condition.from_tokens(torch.randn(2, tokens, 16, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("crossing", [True, False])
def test_logits_are_causal(crossing: bool) -> None:
    """By gradient: the logits at step 4 depend on all steps up to it, a prefix before them, and nothing after."""
    model = make_lm(cross_attention=crossing).eval()
    kept: list[Tensor] = []

    def embedded(_: object, __: object, out: Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    for table in model.embeddings:
        table.register_forward_hook(embedded)
    condition = Condition(memory().tokens.requires_grad_(), memory().mask)
    model(codes(), condition)[:, :, 4].square().sum().backward()
    for out in kept:
        assert out.grad is not None
        assert (out.grad[:, :5].abs().amax(-1) > 0).all()
        assert not out.grad[:, 5:].any()
    assert condition.tokens.grad is not None
    assert (condition.tokens.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("crossing", [True, False])
@torch.inference_mode()
def test_masked_condition_tokens_have_no_effect(crossing: bool) -> None:
    """Not what it holds; and with cross-attention the row is as without it."""
    model, condition = make_lm(cross_attention=crossing).eval(), memory()
    mask = condition.mask.clone()
    mask[0, 3:] = mask[1] = False
    other = torch.where(mask[..., None], condition.tokens, 7.0)
    result = model(codes(), Condition(condition.tokens, mask))
    assert result.isfinite().all()
    assert torch.allclose(result, model(codes(), Condition(other, mask)), atol=1e-6)
    if crossing:
        assert torch.allclose(result[1], model(codes())[1], atol=1e-6)
        short = Condition(condition.tokens[:, :3], mask[:, :3])
        assert torch.allclose(result, model(codes(), short), atol=1e-6)
    assert (result - model(codes(), condition)).abs().max() > 0.01


@torch.inference_mode()
def test_cross_attention_is_permutation_invariant() -> None:
    model, text, video = make_lm().eval(), memory(3, 4), memory(5, 5)
    assert torch.allclose(model(codes(), concat(text, video)), model(codes(), concat(video, text)), atol=1e-5)


def loss_and_grads(model: LM, run: object = None) -> tuple[Tensor, list[Tensor]]:
    model.train()
    model.zero_grad()
    call = model if run is None else run
    logits = call(codes(), memory())  # pyright: ignore[reportCallIssue]
    loss = cross_entropy(logits[:, :, :-1].flatten(0, 2), codes()[:, :, 1:].flatten() % 24)
    loss.backward()
    return loss.detach(), [value.grad for value in model.parameters() if value.grad is not None]


@pytest.mark.parametrize("crossing", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_does_not_change_gradients(crossing: bool, dropout: float) -> None:
    """Dropout falls on the same activations when a layer is recomputed."""
    model = make_lm(cross_attention=crossing, dropout=dropout)
    torch.manual_seed(6)
    loss, grads = loss_and_grads(model)
    model.gradient_checkpointing = True
    torch.manual_seed(6)
    again, same = loss_and_grads(model)
    assert torch.equal(loss, again)
    assert len(grads) == len(same) == len(list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(grads, same, strict=True))


def test_dropout_is_active_only_in_training() -> None:
    model = make_lm(dropout=0.5)
    assert not torch.equal(model(codes(), memory()), model(codes(), memory()))
    model.eval()
    assert torch.equal(model(codes(), memory()), model(codes(), memory()))


def test_training_step_compiles_with_fullgraph() -> None:
    model = make_lm()
    loss, grads = loss_and_grads(model)
    torch._dynamo.reset()
    again, same = loss_and_grads(model, torch.compile(model, backend="aot_eager", fullgraph=True))
    assert torch.allclose(loss, again, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(grads, same, strict=True))


def test_initial_loss_is_near_uniform_and_training_reduces_it() -> None:
    """Knowing nothing, its loss is near ln V, in the deep as in the shallow; and a few steps learn a short piece."""
    for layers in (2, 12):
        model = make_lm(num_layers=layers).eval()
        logits = model(codes(), memory()).detach()
        loss = cross_entropy(logits.flatten(0, 2), codes().flatten() % 24)
        assert abs(float(loss) - math.log(24)) < 1.0
    model = make_lm()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        losses.append(float(loss_and_grads(model)[0]))
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_invalid_config_values_are_reported_together() -> None:
    with pytest.raises(ValueError, match="num_layers 0 must be 1 or more"):
        LMConfig(num_layers=0)
    with pytest.raises(ValueError, match=r"dim 30 must be even and a multiple of the 16 heads.*dropout 1 must"):
        LMConfig(dim=30, dropout=1.0)
    with pytest.raises(ValueError, match=r"delays \[0, 1\] must be 4 numbers"):
        LMConfig(delays=(0, 1))
    with pytest.raises(ValueError, match="3 codebooks cannot be shared by 2 channels"):
        LMConfig(num_codebooks=3, channels=2)
