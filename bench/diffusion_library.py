"""SONIQUE's parts against the libraries they were published with.

`PYTHONPATH=FOLDER uv run python -m bench.diffusion_library` compares network, autoencoder, guidance and samplers.

FOLDER is the site-packages of a separate environment, since their releases conflict with v2m's, with these installed
without their dependencies: stable-audio-tools 0.0.19, descript-audio-codec 1.0.0, k-diffusion 0.1.1, alias-free-torch,
dctorch, einops, einops-exts, ema-pytorch, local-attention, torchdiffeq, torchsde, trampoline, vector-quantize-pytorch.
Modules that are only imported are stubs. Both have the same random weights. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tests.fixtures.tiny import sonique as tiny
from v2m.core.progress import ignore_progress
from v2m.generators.options import SamplerName
from v2m.generators.sonique import samplers
from v2m.generators.sonique.unet import UNet, UNetConfig
from v2m.generators.sonique.windowed_sampling import CFGCondition, cfg_velocity
from v2m.mappings import stable_audio
from v2m.models.conditioning import Condition
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder

STEPS = 20
FUNCTIONS = {
    "dpmpp-2m-sde": "dpmpp_2m_sde",
    "dpmpp-3m-sde": "dpmpp_3m_sde",
    "k-heun": "heun",
    "k-lms": "lms",
    "k-dpmpp-2s-ancestral": "dpmpp_2s_ancestral",
    "k-dpm-2": "dpm_2",
    "k-dpm-fast": "dpm_fast",
}


def stub_module(name: str, **values: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__, module.__path__ = ModuleSpec(name, None), []
    vars(module).update(values)
    sys.modules[name] = module
    return module


def import_libraries() -> dict[str, Any]:
    """Import the modules under test, without their packages' own imports."""
    spec = find_spec("k_diffusion")
    if spec is None or spec.origin is None:
        sys.exit("no module k_diffusion: name the folder of the published libraries in PYTHONPATH")
    packages = Path(spec.origin).parents[1]
    stub_module(
        "audiotools", AudioSignal=object, STFTParams=object, ml=stub_module("audiotools.ml", BaseModel=nn.Module)
    )
    for package in ("k_diffusion", "stable_audio_tools", "stable_audio_tools.models", "dac", "dac.model", "dac.nn"):
        stub_module(package).__path__ = [str(packages / package.replace(".", "/"))]
    stub_module("k_diffusion.utils", append_dims=lambda x, ndim: x[(..., *[None] * (ndim - x.ndim))])
    names = {"adp": "stable_audio_tools.models.adp", "dac": "dac.model.dac", "sampling": "k_diffusion.sampling"}
    return {name: importlib.import_module(path) for name, path in names.items()}


def load_networks(adp: Any, config: dict[str, Any]) -> tuple[Any, UNet]:
    """Return the published network, and v2m's with its weights."""
    torch.manual_seed(1)
    reference = adp.UNetCFG1d(**config["model"]["diffusion"]["config"]).eval()
    with torch.no_grad():
        for value in reference.parameters():
            value.add_(0.02 * torch.randn_like(value))
    model = UNet(UNetConfig(**stable_audio.parse_config(config).unet)).eval()
    model.load_state_dict(reference.state_dict())
    return reference, model


def compare_autoencoders(dac: Any, config: dict[str, Any]) -> dict[str, float]:
    halves, settings = config["model"]["pretransform"]["config"], stable_audio.parse_config(config)
    encoder_config, decoder_config = (halves[half]["config"] for half in ("encoder", "decoder"))
    inner = encoder_config["d_model"] * 2 ** len(encoder_config["strides"])
    encoder = dac.Encoder(encoder_config["d_model"], encoder_config["strides"], inner).eval()
    decoder = dac.Decoder(decoder_config["latent_dim"], decoder_config["channels"], decoder_config["rates"]).eval()
    project = nn.Conv1d(inner, encoder_config["latent_dim"], 1)
    parts = {"encoder.encoder": encoder, "encoder.proj_out": project, "decoder.decoder": decoder}
    state = {
        f"{stable_audio.AUTOENCODER_PREFIX}{name}.{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    model = OobleckAutoencoder.load(
        settings.autoencoder, stable_audio.autoencoder_state(state, settings.autoencoder), ""
    )
    wave = 0.3 * torch.randn(2, 1, settings.hop_length * 150)
    mean = project(encoder(wave)).chunk(2, dim=1)[0]
    reconstructed = decoder(mean)
    return {
        "encoder": relative_difference(model.encode(wave), mean),
        "decoder": relative_difference(model.decode(mean), reconstructed),
    }


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """Return the largest difference over the standard deviation of the reference."""
    return float((value - reference).abs().max() / reference.std())


def compare_guidance(reference: Any, model: UNet, inputs: dict[str, Any]) -> dict[str, float]:
    x, time = torch.randn(2, model.config.latent_dim, 64), torch.tensor([0.3, 0.9])
    differences = {
        "unet": relative_difference(
            model(x, time, inputs["embedding"], inputs["embedding_mask"]), reference(x, time, **inputs)
        )
    }
    kwargs = {"embedding_scale": 6.0, "batch_cfg": True, "rescale_cfg": True, "scale_phi": 0.4}
    positive, negative = (
        Condition(inputs[f"{prefix}embedding"][:1], inputs[f"{prefix}embedding_mask"][:1].bool())
        for prefix in ("", "negative_")
    )
    positive_inputs = {name: value for name, value in inputs.items() if not name.startswith("negative_")}
    differences["guidance"] = relative_difference(
        cfg_velocity(model, CFGCondition(positive, None, 6.0, 0.4))(x, time),
        reference(x, time, **positive_inputs, **kwargs),
    )
    velocity = cfg_velocity(model, CFGCondition(positive, negative, 6.0, 0.4))
    return differences | {"negative": relative_difference(velocity(x, time), reference(x, time, **inputs, **kwargs))}


def sampler_difference(sampling: Any, name: SamplerName) -> float:
    """Difference of a sampler from the library's, for a nonlinear denoiser, in double precision."""
    weights = 0.3 * torch.randn(8, 8, dtype=torch.float64)

    def denoise(x: Tensor, sigma: Any) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1)[0] ** 2 + 1
        return 0.8 * torch.tanh(weights @ x) / level.sqrt() + x / level

    x = 50 * torch.randn(2, 8, 16, dtype=torch.float64)
    own_random, reference_random = (torch.Generator().manual_seed(7) for _ in range(2))

    def draw(random: torch.Generator) -> Tensor:
        return torch.randn(x.shape, generator=random, dtype=torch.float64)

    sigmas = samplers.exponential_sigmas(STEPS, 0.03, 50.0)
    samples = samplers.SAMPLERS[name](
        samplers.SolverContext(denoise, lambda: draw(own_random), ignore_progress), x, sigmas
    )
    function, kwargs = getattr(sampling, f"sample_{FUNCTIONS[name]}"), {}
    if name == "k-dpm-fast":
        return relative_difference(samples, function(denoise, x, 0.03, 50.0, STEPS, disable=True))
    if "sde" in name or "ancestral" in name:
        kwargs["noise_sampler"] = lambda *_: draw(reference_random)
    return relative_difference(
        samples, function(denoise, x, torch.tensor(sigmas, dtype=torch.float64), disable=True, **kwargs)
    )


@torch.inference_mode()
def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    modules = import_libraries()
    config = tiny.make_config()
    reference, model = load_networks(modules["adp"], config)
    width, tokens = model.config.context_dim, model.config.num_tokens
    inputs = {f"{prefix}embedding": torch.randn(1, tokens, width).expand(2, -1, -1) for prefix in ("", "negative_")}
    inputs |= {
        f"{prefix}embedding_mask": (torch.arange(tokens) % 7 < count).float()[None].expand(2, -1)
        for prefix, count in (("", 4), ("negative_", 2))
    }
    differences = compare_guidance(reference, model, inputs) | compare_autoencoders(modules["dac"], config)
    names: tuple[SamplerName, ...] = get_args(SamplerName)
    differences |= {name: sampler_difference(modules["sampling"], name) for name in names}
    with torch.device("meta"):
        published = tiny.published_config()
        published_state = modules["adp"].UNetCFG1d(**published["model"]["diffusion"]["config"]).state_dict()
        state = UNet(UNetConfig(**stable_audio.parse_config(published).unet)).state_dict()
    published_shapes, shapes = ({name: value.shape for name, value in s.items()} for s in (published_state, state))
    same = published_shapes == shapes
    for name, value in differences.items():
        print(f"{name:24} {value:.1e}")
    print(f"names and shapes of the published size: {'the same' if same else 'differ'} ({len(published_state)})")
    print(json.dumps({**{name: float(f"{value:.2e}") for name, value in differences.items()}, "same_names": same}))


if __name__ == "__main__":
    main()
