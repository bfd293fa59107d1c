"""SONIQUE of some 0.5 M random parameters in the layout its author published: `best_model.json` and a checkpoint as
Lightning writes it, CLAP's checkpoint as LAION does, and RoBERTa's tokenizer.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import RobertaConfig, RobertaModel

from bench.tiny import encodec
from v2m.convert import stable_audio
from v2m.frozen.unet import UNet, UNetSizes

JSON, CHECKPOINT, CLAP = "best_model.json", "ckpts/stable_ep=220.ckpt", "ckpts/clap/clap.ckpt"
SAMPLE_RATE, HOP, FRAMES = 4000, 64, 64  # a window of 1.024 s
LATENT, WIDTH, ENCODER, DECODER = 8, 64, 4, 64
STRIDES, RATES = (4, 4, 4), (4, 4, 4)
TOKENS, SECONDS = 77, ("seconds_start", "seconds_total")
WORDS = """
guitar, drums, bass, rock, 140 BPM
piano, classical, calm, warm, 61 BPM
ambient, synthesizer, strings, dark, cinematic, 90 BPM
electronic, bright, happy, energetic, airy, 128 bpm
vocals, low quality, noise, jazz, acoustic, folk, funk, orchestral, waltz, lo-fi
acoustic guitar, fiddle, double bass, tambourine, hopeful, warm, woody, natural, d major, 97 bpm
electric piano, flute, cello, violin, strings, pads, tender, tense, playful, f minor, 72 bpm
"""


def settings(**changes: Any) -> dict[str, Any]:
    """As the published JSON but for sizes; `changes` take the place of the U-Net's."""
    network: dict[str, Any] = {
        "in_channels": LATENT,
        "context_embedding_features": WIDTH,
        "context_embedding_max_length": TOKENS + len(SECONDS),
        "channels": 32,
        "resnet_groups": 16,
        "kernel_multiplier_downsample": 2,
        "multipliers": [1, 1, 1, 2, 2],
        "factors": [1, 2, 2, 4],
        "num_blocks": [2, 2, 2, 2],
        "attentions": [1, 2, 1, 1, 1],
        "attention_heads": 4,
        "attention_multiplier": 4,
        "use_nearest_upsample": False,
        "use_skip_scale": True,
        "use_context_time": True,
    }
    clap = {
        "audio_model_type": "HTSAT-base",
        "enable_fusion": True,
        "clap_ckpt_path": f"./{CLAP}",
        "use_text_features": True,
        "feature_layer_ix": -2,
    }
    numbers = [{"id": name, "type": "int", "config": {"min_val": 0, "max_val": 512}} for name in SECONDS]
    encoder = {"in_channels": 1, "latent_dim": 2 * LATENT, "d_model": ENCODER, "strides": list(STRIDES)}
    decoder = {"out_channels": 1, "latent_dim": LATENT, "channels": DECODER, "rates": list(RATES)}
    autoencoder = {
        "encoder": {"type": "dac", "config": encoder},
        "decoder": {"type": "dac", "config": decoder},
        "bottleneck": {"type": "vae"},
        "latent_dim": LATENT,
        "downsampling_ratio": HOP,
        "io_channels": 1,
    }
    return {
        "model_type": "diffusion_cond",
        "sample_size": HOP * FRAMES,
        "sample_rate": SAMPLE_RATE,
        "audio_channels": 1,
        "model": {
            "pretransform": {"type": "autoencoder", "iterate_batch": True, "config": autoencoder},
            "conditioning": {
                "configs": [{"id": "prompt", "type": "clap_text", "config": clap}, *numbers],
                "cond_dim": WIDTH,
            },
            "diffusion": {
                "type": "adp_cfg_1d",
                "cross_attention_cond_ids": ["prompt", *SECONDS],
                "config": network | changes,
            },
            "io_channels": LATENT,
        },
        "training": {"learning_rate": 4e-5, "demo": {"demo_every": 2000, "demo_steps": 250}},
    }


def published() -> dict[str, Any]:
    """The settings of the published JSON."""
    unet = {"channels": 256, "multipliers": [4, 4, 4, 5, 5], "attentions": [1, 3, 3, 3, 3], "attention_heads": 16}
    config = settings(**unet, in_channels=64, context_embedding_features=768)
    halves = config["model"]["pretransform"]["config"]
    halves["encoder"]["config"] |= {"latent_dim": 128, "d_model": 128, "strides": [4, 4, 8, 8]}
    halves["decoder"]["config"] |= {"latent_dim": 64, "channels": 1536, "rates": [8, 8, 4, 4]}
    halves |= {"latent_dim": 64, "downsampling_ratio": 1024}
    return config | {"sample_rate": 44100, "sample_size": 1048576}


class Snake(nn.Module):
    """The published activation: x + sin²(αx) / α."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(0.5 + torch.rand(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * (self.alpha * x).sin().square()


class Unit(nn.Module):
    """The published residual unit."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        wide = weight_norm(nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation))
        self.block = nn.Sequential(
            Snake(channels), wide, Snake(channels), weight_norm(nn.Conv1d(channels, channels, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Stage(nn.Module):
    """What lies in one `block` of the published layout."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def encoder(width: int, strides: Sequence[int]) -> nn.Sequential:
    """The published `encoder.encoder.block`, written anew after its description."""
    layers: list[nn.Module] = [weight_norm(nn.Conv1d(1, width, 7, padding=3))]
    for stride in strides:
        down = weight_norm(nn.Conv1d(width, 2 * width, 2 * stride, stride=stride, padding=-(-stride // 2)))
        layers.append(Stage(*(Unit(width, dilation) for dilation in (1, 3, 9)), Snake(width), down))
        width *= 2
    return nn.Sequential(*layers, Snake(width), weight_norm(nn.Conv1d(width, width, 3, padding=1)))


def decoder(latent: int, width: int, rates: Sequence[int]) -> nn.Sequential:
    """The published `decoder.decoder.model`, likewise."""
    layers: list[nn.Module] = [weight_norm(nn.Conv1d(latent, width, 7, padding=3))]
    for rate in rates:
        out = width // 2
        up = weight_norm(nn.ConvTranspose1d(width, out, 2 * rate, stride=rate, padding=-(-rate // 2)))
        layers.append(Stage(Snake(width), up, *(Unit(out, dilation) for dilation in (1, 3, 9))))
        width = out
    return nn.Sequential(*layers, Snake(width), weight_norm(nn.Conv1d(width, 1, 7, padding=3)), nn.Tanh())


def autoencoder(config: dict[str, Any] | None = None, *, seed: int = 0) -> nn.ModuleDict:
    """`encoder`, `project` and `decoder`, whose sound is neither silent nor clipped."""
    halves = (config or settings())["model"]["pretransform"]["config"]
    hearing, telling = (halves[half]["config"] for half in ("encoder", "decoder"))
    inner = hearing["d_model"] * 2 ** len(hearing["strides"])
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = nn.ModuleDict({"encoder": encoder(hearing["d_model"], hearing["strides"])})
        made["project"] = nn.Conv1d(inner, hearing["latent_dim"], 1)
        made["decoder"] = decoder(telling["latent_dim"], telling["channels"], telling["rates"])
    return made.eval()


def unet(config: dict[str, Any] | None = None, *, seed: int = 0) -> UNet:
    """Ours, whose names are the published ones; random, so that the words are heard."""
    sizes = UNetSizes(**stable_audio.settings(config or settings()).unet)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed + 1)
        made = UNet(sizes).eval()
        with torch.no_grad():
            for name, value in made.named_parameters():
                if "norm" in name or name.endswith("to_in.0.weight"):
                    value.add_(0.2 * torch.randn(value.shape))
                elif "cross_attention" in name and value.ndim == 2:
                    value.mul_(3)  # as initialised, they hardly are
    return made


def state(config: dict[str, Any] | None = None, *, seed: int = 0) -> dict[str, Tensor]:
    """The published checkpoint's `state_dict`."""
    config = config or settings()
    both, random = autoencoder(config, seed=seed), torch.Generator().manual_seed(seed + 2)
    parts = {"encoder": "encoder.encoder.block", "project": "encoder.proj_out", "decoder": "decoder.decoder.model"}
    found = {f"model.model.{name}": value for name, value in unet(config, seed=seed).state_dict().items()}
    for ours, theirs in parts.items():
        found |= {f"pretransform.model.{theirs}.{name}": value for name, value in _plainly(both[ours]).items()}
    for name in SECONDS:
        table = torch.randn(513, _width(config), generator=random)
        found[f"conditioner.conditioners.{name}.int_embedder.weight"] = table
    return found


def _width(config: dict[str, Any]) -> int:
    return config["model"]["diffusion"]["config"]["context_embedding_features"]


def clap(width: int = WIDTH, *, seed: int = 0) -> RobertaModel:
    """The text branch: the shape of roberta-base, whose width is 768 and which has 12 layers."""
    config = RobertaConfig(
        vocab_size=512,
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=96,
        max_position_embeddings=TOKENS + 3,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed + 3)
        made = RobertaModel(config).eval()
        with torch.no_grad():
            for value in made.parameters():
                if value.ndim == 2:
                    value.mul_(8)  # as initialised, tokens hardly differ
    return made


def clap_checkpoint(path: Path, width: int = WIDTH, *, seed: int = 0) -> Path:
    """As laion_clap's training writes it: names under `module.`, an audio branch beside the text branch."""
    branch = {f"module.text_branch.{name}": value for name, value in clap(width, seed=seed).state_dict().items()}
    branch["module.text_branch.embeddings.position_ids"] = torch.arange(TOKENS + 3)[None]  # as older libraries save
    others = {"module.logit_scale_a": torch.tensor(2.66), "module.audio_branch.bn0.weight": torch.ones(4)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 15, "name": "clap", "state_dict": collections.OrderedDict(others | branch)}, path)
    return path


def tokenizer(folder: Path) -> Path:
    """`vocab.json` and `merges.txt`, as roberta-base has them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words.train_from_iterator(WORDS.splitlines(), vocab_size=500, special_tokens=marks, show_progress=False)
    words.save_model(str(folder))
    return folder


def write(folder: Path, config: dict[str, Any] | None = None, *, seed: int = 0, wrapped: bool = False) -> Path:
    """The project's folder with what its archive of checkpoints unpacks to; `wrapped` as training leaves it."""
    config = config or settings()
    (folder / "ckpts").mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_text(json.dumps(config, indent=4))
    found = state(config, seed=seed)
    found = _wrapped(found) if wrapped else found
    whole = {"epoch": 220, "global_step": 7, "pytorch-lightning_version": "2.1.0", "state_dict": found}
    torch.save(whole, folder / CHECKPOINT)
    clap_checkpoint(folder / CLAP, _width(config), seed=seed)
    tokenizer(folder)
    return folder


def _plainly(module: nn.Module) -> dict[str, Tensor]:
    """With weight norm under its old names."""
    return encodec.published(module.state_dict())


def _wrapped(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of what trains it, where the U-Net that is not averaged is another one."""
    network = {name.removeprefix("model."): value for name, value in found.items() if name.startswith("model.")}
    average = {f"diffusion_ema.ema_model.{name}": value for name, value in network.items()}
    stale = {f"diffusion.model.{name}": value + 1 for name, value in network.items()}
    rest = {f"diffusion.{name}": value for name, value in found.items() if not name.startswith("model.")}
    return rest | stale | average | {"diffusion_ema.initted": torch.tensor(True), "diffusion_ema.step": torch.tensor(7)}
