"""EnCodec models of some 50 k random parameters, shaped as `facebook/encodec_32khz`: 50 frames a second of 4 codebooks.

In transformers' published format, and in the one that audiocraft trains and exports.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel

RATIOS = (8, 5, 4, 4)
CODEBOOKS, ENTRIES, SAMPLE_RATE = 4, 64, 32000
LATENT, FILTERS = 16, 4
PUBLISHED = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def config(*, sample_rate: int = SAMPLE_RATE, entries: int = ENTRIES, **sizes: Any) -> EncodecConfig:
    """As published but for widths; `sizes` are settings of transformers' that take the place of these."""
    bits = CODEBOOKS * sample_rate // math.prod(RATIOS) * math.ceil(math.log2(entries))
    settings: dict[str, Any] = {
        "target_bandwidths": [bits / 1000],
        "sampling_rate": sample_rate,
        "audio_channels": 1,
        "normalize": False,
        "hidden_size": LATENT,
        "num_filters": FILTERS,
        "num_residual_layers": 1,
        "upsampling_ratios": list(RATIOS),
        "norm_type": "weight_norm",
        "use_causal_conv": False,
        "use_conv_shortcut": False,
        "pad_mode": "reflect",
        "codebook_size": entries,
        "architectures": ["EncodecModel"],
    }
    return EncodecConfig(**settings | sizes)


def model(settings: EncodecConfig, *, seed: int = 0) -> EncodecModel:
    """Random, but its codes tell sounds apart and its sound is neither silent nor beyond ±1."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = EncodecModel(settings).eval()
        liven(made.encoder, made.decoder, made.quantizer.layers, settings.audio_channels)
    return made


def write(folder: Path, *, seed: int = 0, sample_rate: int = SAMPLE_RATE, entries: int = ENTRIES) -> Path:
    """A folder as `facebook/encodec_32khz`; weight norm has its old names there, as in the published file."""
    return save(folder, model(config(sample_rate=sample_rate, entries=entries), seed=seed))


def save(folder: Path, made: EncodecModel) -> Path:
    """Config and weights in the published format, into `folder`, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    made.config.save_pretrained(folder)
    save_file(published(made.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With weight norm's names as in the published files."""
    for new, old in PUBLISHED.items():
        state = {key.replace(new, old): value.contiguous() for key, value in state.items()}
    return state


def audiocraft_config(*, sample_rate: int = SAMPLE_RATE, entries: int = ENTRIES, **seanet: Any) -> dict[str, Any]:
    """What `xp.cfg` of such a model says; `seanet` takes the place of settings of the networks."""
    network = {
        "dimension": LATENT,
        "channels": 1,
        "causal": False,
        "n_filters": FILTERS,
        "n_residual_layers": 1,
        "ratios": list(RATIOS),
        "activation": "ELU",
        "activation_params": {"alpha": 1.0},
        "norm": "weight_norm",
        "norm_params": {},
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 7,
        "dilation_base": 2,
        "pad_mode": "constant",
        "true_skip": True,
        "compress": 2,
        "lstm": 2,
        "disable_norm_outer_blocks": 0,
        "encoder": {},
        "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
    }
    network |= seanet
    return {
        "solver": "compression",
        "sample_rate": sample_rate,
        "channels": network["channels"],
        "compression_model": "encodec",
        "device": "cpu",
        "seanet": network,
        "rvq": {"n_q": CODEBOOKS, "q_dropout": False, "bins": entries, "decay": 0.99, "kmeans_init": True},
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": sample_rate,
            "channels": network["channels"],
            "causal": network["causal"],
            "renormalize": False,
        },
    }


def audiocraft_model(settings: dict[str, Any], *, seed: int = 0) -> Any:
    """audiocraft's own `EncodecModel`, random as in `model`."""
    import omegaconf  # noqa: PLC0415 (as audiocraft, which takes seconds)
    from audiocraft.models.builders import get_compression_model  # noqa: PLC0415

    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the weight norm that it is built with
        torch.manual_seed(seed)
        made: Any = get_compression_model(omegaconf.OmegaConf.create(settings)).eval()
        liven(made.encoder, made.decoder, made.quantizer.vq.layers, settings["channels"])
    return made


def audiocraft_compression(
    path: Path, *, seed: int = 0, sample_rate: int = SAMPLE_RATE, entries: int = ENTRIES, **seanet: Any
) -> Path:
    """audiocraft's `compression_state_dict.bin`, whole."""
    settings = audiocraft_config(sample_rate=sample_rate, entries=entries, **seanet)
    state = audiocraft_model(settings, seed=seed).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    exported = {"best_state": state, "xp.cfg": yaml.safe_dump(settings), "version": "1.3.0", "exported": True}
    torch.save(exported, path)
    return path


def audiocraft_reference(path: Path, name: str = "facebook/encodec_32khz") -> Path:
    """audiocraft's `compression_state_dict.bin` that only says where the codec is to be fetched, as MusicGen's does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"pretrained": name, "exported": True, "version": "1.3.0"}, path)
    return path


@torch.no_grad()
def liven(encoder: Any, decoder: Any, layers: Any, channels: int) -> None:
    """Layers that pass on what they hear, codebooks as wide as what reaches each of them, sound of some −20 dBFS."""
    for each in (*encoder.modules(), *decoder.modules()):
        if isinstance(each, nn.LSTM):
            for value in each.parameters():
                value.normal_(0, 0.4)
    rest = _levelled(encoder, 0.2 * torch.randn(1, channels, 32000)).mT  # (1, T, D)
    whole = torch.zeros(())
    for layer in layers:
        book = layer._codebook if hasattr(layer, "_codebook") else layer.codebook  # transformers' name is the second
        book.embed.normal_().mul_(rest.std(dim=(0, 1))).add_(rest.mean(dim=(0, 1)))
        book.inited.fill_(1)
        book.cluster_size.uniform_(1, 2)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        found = torch.cdist(rest, book.embed[None]).argmin(dim=-1)
        whole = whole + book.embed[found]
        rest = rest - book.embed[found]
    sound = _levelled(decoder, whole.mT)
    *_, last = (each for each in decoder.modules() if isinstance(each, nn.Conv1d))
    _scale(last, 0.1 / float(sound.std()))


def _levelled(network: Any, x: Tensor) -> Tensor:
    """What the network makes of `x`, once each of its own convolutions has been brought to give values of about 1."""
    for layer in network.layers if hasattr(network, "layers") else network.model:
        inner = [each for each in layer.modules() if isinstance(each, nn.Conv1d | nn.ConvTranspose1d)]
        if len(inner) == 1:  # else a residual block
            _scale(inner[0], 1 / float(layer(x).std(dim=-1).mean()))
            if inner[0].bias is not None:
                inner[0].bias.mul_(0.3)
        x = layer(x)
    return x


def _scale(convolution: nn.Module, factor: float) -> None:
    for name, value in convolution.named_parameters():
        if name.endswith(("original0", "weight_g", "bias")) or name == "weight":
            value.mul_(factor)
