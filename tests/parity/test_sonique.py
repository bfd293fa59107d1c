"""SONIQUE against versions written out from its published layout: U-Net, autoencoder, CLAP's text, and the samplers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import RobertaTokenizer

from tests.fixtures.tiny import solvers
from tests.fixtures.tiny import sonique as tiny
from v2m.generators.options import SamplerName
from v2m.generators.sonique import checkpoint
from v2m.mappings import stable_audio
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder
from v2m.pretrained.safe_load import read_json, read_pickle
from v2m.pretrained.text import ClapTextEncoder

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("sonique") / "model")


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def convolved(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    total = weight.shape[2] - stride
    return functional.conv1d(functional.pad(x, (total - total // 2, total // 2)), weight, state[f"{name}.bias"], stride)


def residual(state: State, name: str, x: Tensor, mapping: Tensor, groups: int) -> Tensor:
    def normed(block: str, x: Tensor) -> Tensor:
        return functional.group_norm(x, groups, state[f"{block}.groupnorm.weight"], state[f"{block}.groupnorm.bias"])

    hidden = convolved(state, f"{name}.block1.project", functional.silu(normed(f"{name}.block1", x)))
    both = linear(state, f"{name}.to_scale_shift.to_scale_shift.1", functional.silu(mapping))[..., None]
    scale, shift = both.chunk(2, dim=1)
    hidden = normed(f"{name}.block2", hidden) * (1 + scale) + shift
    hidden = convolved(state, f"{name}.block2.project", functional.silu(hidden))
    past = convolved(state, f"{name}.to_out", x) if f"{name}.to_out.weight" in state else x
    return hidden + past


def attended(state: State, name: str, x: Tensor, told: tuple[Tensor, Tensor] | None, heads: int) -> Tensor:
    context, mask = told or (x, None)

    def normed(which: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.{which}.weight"], state[f"{name}.{which}.bias"])

    query = linear(state, f"{name}.to_q", normed("norm", x))
    key, value = linear(state, f"{name}.to_kv", normed("norm_context", context)).chunk(2, dim=-1)
    if mask is not None:
        key, value = key * mask[..., None], value * mask[..., None]
    out = torch.zeros_like(query)
    width = query.shape[-1] // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].mT / math.sqrt(width)
        out[..., part] = scores.softmax(-1) @ value[..., part]
    return linear(state, f"{name}.attention.to_out", out)


def transformed(state: State, name: str, x: Tensor, told: tuple[Tensor, Tensor], heads: int) -> Tensor:
    x = functional.group_norm(x, 32, state[f"{name}.to_in.0.weight"], state[f"{name}.to_in.0.bias"], 1e-6)
    x = convolved(state, f"{name}.to_in.1", x).mT
    layer = 0
    while f"{name}.blocks.{layer}.attention.to_q.weight" in state:
        block = f"{name}.blocks.{layer}"
        x = attended(state, f"{block}.attention", x, None, heads) + x
        x = attended(state, f"{block}.cross_attention", x, told, heads) + x
        x = linear(state, f"{block}.feed_forward.2", functional.gelu(linear(state, f"{block}.feed_forward.0", x))) + x
        layer += 1
    return convolved(state, f"{name}.to_out.1", x.mT)


def written_out(state: State, settings: dict[str, Any], x: Tensor, time: Tensor, told: tuple[Tensor, Tensor]) -> Tensor:
    """The published network, step by step from its state dict and its JSON."""
    groups, heads, levels = settings["resnet_groups"], settings["attention_heads"], len(settings["factors"])

    def block(name: str, x: Tensor) -> Tensor:
        return residual(state, name, x, mapping, groups)

    def attention(name: str, x: Tensor) -> Tensor:
        return transformed(state, f"{name}.transformer", x, told, heads)

    angle = time[:, None] * state["to_time.0.0.weights"] * 2 * math.pi
    waves = torch.cat([time[:, None], angle.sin(), angle.cos()], 1)
    mapping = functional.gelu(linear(state, "to_time.0.1", waves))
    mapping = functional.gelu(linear(state, "to_mapping.2", functional.gelu(linear(state, "to_mapping.0", mapping))))
    x = first = residual(state, "to_in.block", x, mapping, 1)
    across: list[Tensor] = []
    for level in range(levels):
        x = convolved(state, f"downsamples.{level}.downsample", x, settings["factors"][level])
        for n in range(settings["num_blocks"][level]):
            x = block(f"downsamples.{level}.blocks.{n}", x)
            across.append(x)
        if settings["attentions"][level]:
            x = attention(f"downsamples.{level}", x)
            across.append(x)
    x = block("bottleneck.post_block", attention("bottleneck", block("bottleneck.pre_block", x)))
    for place, level in enumerate(reversed(range(levels))):
        for n in range(settings["num_blocks"][level] + bool(settings["attentions"][level])):
            x = block(f"upsamples.{place}.blocks.{n}", torch.cat([x, across.pop() / math.sqrt(2)], 1))
        if settings["attentions"][level]:
            x = attention(f"upsamples.{place}", x)
        name, factor = f"upsamples.{place}.upsample", settings["factors"][level]
        if factor == 1:
            x = convolved(state, name, x)
        else:
            x = functional.conv_transpose1d(
                x, state[f"{name}.weight"], state[f"{name}.bias"], factor, padding=factor // 2
            )
    return residual(state, "to_out.block", x + first, mapping, 1)


@pytest.mark.parametrize("attentions", [[1, 2, 1, 1, 1], [0, 1, 0, 2, 1]])
@torch.inference_mode()
def test_unet_equals_the_published_code(attentions: list[int]) -> None:
    config = tiny.make_config(attentions=attentions)
    settings, ours = config["model"]["diffusion"]["config"], tiny.make_unet(config)
    x, time = torch.randn(2, tiny.LATENT, 48), torch.tensor([0.1, 0.97])
    context, mask = torch.randn(2, 79, tiny.WIDTH), torch.rand(2, 79) > 0.4
    wanted = written_out(ours.state_dict(), settings, x, time, (context, mask.float()))
    found = ours(x, time, context, mask)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=5e-5)


def test_published_config_gives_models_of_the_published_size() -> None:
    settings = stable_audio.parse_config(tiny.published_config())
    with torch.device("meta"):
        network = checkpoint.UNet(checkpoint.UNetConfig(**settings.unet))
        autoencoder = OobleckAutoencoder(settings.autoencoder)
    sizes = [round(sum(value.numel() for value in each.parameters()) / 1e6, 1) for each in (network, autoencoder)]
    assert sizes == [906.7, 133.4]
    assert (len(network.state_dict()), settings.window_samples // settings.hop_length) == (806, 1024)


@torch.inference_mode()
def test_autoencoder_equals_the_published_code(folder: Path) -> None:
    parts = checkpoint.load_components(str(folder), "none")
    there = tiny.make_autoencoder()
    wave = 0.3 * torch.randn(2, 1, tiny.HOP * 200)
    mean, _ = there["project"](there["encoder"](wave)).chunk(2, dim=1)
    torch.testing.assert_close(parts.autoencoder.encode(wave), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.autoencoder.decode(mean), there["decoder"](mean), rtol=1e-4, atol=1e-5)
    assert mean.std() > 0.05


@torch.inference_mode()
def test_clap_text_embedding_equals_the_published_layer(folder: Path) -> None:
    texts = ["piano, classical, calm, 61 bpm", ""]
    found = ClapTextEncoder.load(folder / tiny.CLAP, folder, layer=-2).encode(texts)
    read: Any = RobertaTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    states = tiny.make_clap()(read["input_ids"], attention_mask=read["attention_mask"], output_hidden_states=True)
    torch.testing.assert_close(found.tokens, states.hidden_states[-2])
    assert found.mask.sum(dim=1).tolist() == [len(read["input_ids"][0][read["attention_mask"][0] > 0]), 2]
    assert not torch.allclose(found.tokens[0, 1], found.tokens[1, 1])


def test_training_checkpoint_loads_the_ema_unet(tmp_path: Path, folder: Path) -> None:
    tiny.write(tmp_path / "model", wrapped=True)
    plain, wrapped = (checkpoint.load_components(str(each), "none") for each in (folder, tmp_path / "model"))
    for name, value in plain.unet.state_dict().items():
        torch.testing.assert_close(wrapped.unet.state_dict()[name], value, rtol=0, atol=0)
    torch.testing.assert_close(
        wrapped.seconds_embeddings["seconds_total"], plain.seconds_embeddings["seconds_total"], rtol=0, atol=0
    )


def test_tiny_config_is_parsed_completely(folder: Path) -> None:
    settings = stable_audio.parse_config(read_json(folder / tiny.CONFIG_FILE))
    state = read_pickle(folder / tiny.CHECKPOINT)["state_dict"]
    taken = {f"{stable_audio.UNET_PREFIX}{name}" for name in stable_audio.unet_state(state)}
    taken |= {
        name for name in state if name.startswith((stable_audio.AUTOENCODER_PREFIX, stable_audio.CONDITIONER_PREFIX))
    }
    assert taken == set(state)
    assert settings.cond_order == ("prompt", "seconds_start", "seconds_total")


@pytest.mark.parametrize("name", solvers.REFERENCE_SAMPLERS)
@pytest.mark.parametrize("steps", [2, 3, 4, 7, 30])
def test_sampler_equals_the_written_out_steps(name: SamplerName, steps: int) -> None:
    found, wanted = solvers.compare_with_reference(name, steps)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
