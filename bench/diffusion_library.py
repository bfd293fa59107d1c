"""SONIQUE's parts against the libraries they were published with.

`PYTHONPATH=FOLDER uv run python -m bench.diffusion_library` compares network, autoencoder, guidance and samplers.

FOLDER is the site-packages of an environment of its own, whose releases do not go with ours, into which these were
installed without what they ask for: stable-audio-tools 0.0.19, descript-audio-codec 1.0.0, k-diffusion 0.1.1,
alias-free-torch, dctorch, einops, einops-exts, ema-pytorch, local-attention, torchdiffeq, torchsde, trampoline,
vector-quantize-pytorch. What of them is only imported is left empty. The same random weights, in both. Last line: one
JSON object.
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


def empty(name: str, **values: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__, module.__path__ = ModuleSpec(name, None), []
    vars(module).update(values)
    sys.modules[name] = module
    return module


def libraries() -> dict[str, Any]:
    """Import the modules under test, without their packages' own imports."""
    found = find_spec("k_diffusion")
    if found is None or found.origin is None:
        sys.exit("no module k_diffusion: name the folder of the published libraries in PYTHONPATH")
    packages = Path(found.origin).parents[1]
    empty("audiotools", AudioSignal=object, STFTParams=object, ml=empty("audiotools.ml", BaseModel=nn.Module))
    for package in ("k_diffusion", "stable_audio_tools", "stable_audio_tools.models", "dac", "dac.model", "dac.nn"):
        empty(package).__path__ = [str(packages / package.replace(".", "/"))]
    empty("k_diffusion.utils", append_dims=lambda x, ndim: x[(..., *[None] * (ndim - x.ndim))])
    names = {"adp": "stable_audio_tools.models.adp", "dac": "dac.model.dac", "sampling": "k_diffusion.sampling"}
    return {name: importlib.import_module(path) for name, path in names.items()}


def network(adp: Any, config: dict[str, Any]) -> tuple[Any, UNet]:
    """The published network, and ours with its weights."""
    torch.manual_seed(1)
    there = adp.UNetCFG1d(**config["model"]["diffusion"]["config"]).eval()
    with torch.no_grad():
        for value in there.parameters():
            value.add_(0.02 * torch.randn_like(value))
    ours = UNet(UNetConfig(**stable_audio.parse_config(config).unet)).eval()
    ours.load_state_dict(there.state_dict())
    return there, ours


def autoencoders(dac: Any, config: dict[str, Any]) -> dict[str, float]:
    halves, settings = config["model"]["pretransform"]["config"], stable_audio.parse_config(config)
    hearing, telling = (halves[half]["config"] for half in ("encoder", "decoder"))
    inner = hearing["d_model"] * 2 ** len(hearing["strides"])
    encoder = dac.Encoder(hearing["d_model"], hearing["strides"], inner).eval()
    decoder = dac.Decoder(telling["latent_dim"], telling["channels"], telling["rates"]).eval()
    project = nn.Conv1d(inner, hearing["latent_dim"], 1)
    parts = {"encoder.encoder": encoder, "encoder.proj_out": project, "decoder.decoder": decoder}
    state = {
        f"{stable_audio.AUTOENCODER_PREFIX}{name}.{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    ours = OobleckAutoencoder.load(
        settings.autoencoder, stable_audio.autoencoder_state(state, settings.autoencoder), ""
    )
    wave = 0.3 * torch.randn(2, 1, settings.hop_length * 150)
    mean = project(encoder(wave)).chunk(2, dim=1)[0]
    sound = decoder(mean)
    return {"encoder": apart(ours.encode(wave), mean), "decoder": apart(ours.decode(mean), sound)}


def apart(ours: Tensor, there: Tensor) -> float:
    """The largest difference, by the spread of what it differs from."""
    return float((ours - there).abs().max() / there.std())


def guidance(there: Any, ours: UNet, given: dict[str, Any]) -> dict[str, float]:
    x, time = torch.randn(2, ours.config.latent_dim, 64), torch.tensor([0.3, 0.9])
    found = {"unet": apart(ours(x, time, given["embedding"], given["embedding_mask"]), there(x, time, **given))}
    more = {"embedding_scale": 6.0, "batch_cfg": True, "rescale_cfg": True, "scale_phi": 0.4}
    wanted, other = (
        Condition(given[f"{which}embedding"][:1], given[f"{which}embedding_mask"][:1].bool())
        for which in ("", "negative_")
    )
    both = {name: value for name, value in given.items() if not name.startswith("negative_")}
    found["guidance"] = apart(
        cfg_velocity(ours, CFGCondition(wanted, None, 6.0, 0.4))(x, time), there(x, time, **both, **more)
    )
    negative = cfg_velocity(ours, CFGCondition(wanted, other, 6.0, 0.4))
    return found | {"negative": apart(negative(x, time), there(x, time, **given, **more))}


def sampled(sampling: Any, name: SamplerName) -> float:
    """Difference of a sampler from the library's, for a nonlinear denoiser, in double precision."""
    bent = 0.3 * torch.randn(8, 8, dtype=torch.float64)

    def denoise(x: Tensor, sigma: Any) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1)[0] ** 2 + 1
        return 0.8 * torch.tanh(bent @ x) / level.sqrt() + x / level

    x = 50 * torch.randn(2, 8, 16, dtype=torch.float64)
    here, there = (torch.Generator().manual_seed(7) for _ in range(2))

    def draw(random: torch.Generator) -> Tensor:
        return torch.randn(x.shape, generator=random, dtype=torch.float64)

    sigmas = samplers.exponential_sigmas(STEPS, 0.03, 50.0)
    ours = samplers.SAMPLERS[name](samplers.SolverContext(denoise, lambda: draw(here), ignore_progress), x, sigmas)
    function, more = getattr(sampling, f"sample_{FUNCTIONS[name]}"), {}
    if name == "k-dpm-fast":
        return apart(ours, function(denoise, x, 0.03, 50.0, STEPS, disable=True))
    if "sde" in name or "ancestral" in name:
        more["noise_sampler"] = lambda *_: draw(there)
    return apart(ours, function(denoise, x, torch.tensor(sigmas, dtype=torch.float64), disable=True, **more))


@torch.inference_mode()
def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    found = libraries()
    config = tiny.make_config()
    there, ours = network(found["adp"], config)
    width, tokens = ours.config.context_dim, ours.config.num_tokens
    given = {f"{which}embedding": torch.randn(1, tokens, width).expand(2, -1, -1) for which in ("", "negative_")}
    given |= {
        f"{which}embedding_mask": (torch.arange(tokens) % 7 < many).float()[None].expand(2, -1)
        for which, many in (("", 4), ("negative_", 2))
    }
    differences = guidance(there, ours, given) | autoencoders(found["dac"], config)
    names: tuple[SamplerName, ...] = get_args(SamplerName)
    differences |= {name: sampled(found["sampling"], name) for name in names}
    with torch.device("meta"):
        published = tiny.published_config()
        whole = found["adp"].UNetCFG1d(**published["model"]["diffusion"]["config"]).state_dict()
        mine = UNet(UNetConfig(**stable_audio.parse_config(published).unet)).state_dict()
    same = {name: value.shape for name, value in whole.items()} == {name: value.shape for name, value in mine.items()}
    for name, value in differences.items():
        print(f"{name:24} {value:.1e}")
    print(f"names and shapes of the published size: {'the same' if same else 'differ'} ({len(whole)})")
    print(json.dumps({**{name: float(f"{value:.2e}") for name, value in differences.items()}, "same_names": same}))


if __name__ == "__main__":
    main()
