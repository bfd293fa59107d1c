"""SONIQUE's checkpoint, in the layout of its author's archive unpacked into a copy of the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.core.types import WeightsInfo
from v2m.generators.sonique.unet import UNet, UNetConfig
from v2m.mappings import stable_audio
from v2m.mappings.stable_audio import StableAudioConfig
from v2m.mappings.state_dict_map import truncate_list
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder
from v2m.pretrained.licenses import CLAP_LICENSE
from v2m.pretrained.safe_load import check_finite, load_strict, read_json, read_pickle, read_safetensors
from v2m.pretrained.text import ClapTextEncoder
from v2m.pretrained.weights import checkpoint_folders, fetch

CONFIG_FILE, CHECKPOINT_DIR, CLAP_FILE = "best_model.json", "ckpts", "ckpts/clap/clap.ckpt"
SUFFIXES = {".ckpt", ".safetensors"}  # as trained; and as the trainer exports it
DEFAULT_NAME = "sonique"
PAGE = "github.com/zxxwxyyy/sonique"
LICENSE = "MIT (of the repository; the archive of weights names none)"
TOKENIZER_FILES = ("tokenizer.json|vocab.json", "tokenizer.json|merges.txt")


@dataclass(frozen=True)
class SoniqueComponents:
    """The components of the model, on the CPU; `seconds_embeddings` are (numbers, D)."""

    config: StableAudioConfig
    unet: UNet
    autoencoder: OobleckAutoencoder
    text_encoder: ClapTextEncoder
    seconds_embeddings: Mapping[str, Tensor]
    weights: tuple[WeightsInfo, ...]


def load_components(name: str, tokenizer: str) -> SoniqueComponents:
    """Load all components from the folder `name`, given by its path or below a checkpoint folder.

    `name` may also be the path of one of the checkpoints in it. `tokenizer` is a folder or repository of RoBERTa's
    tokenizer, for a folder that holds none.
    """
    info = _find_weights(name)
    folder = info.folder
    config = stable_audio.parse_config(read_json(folder / CONFIG_FILE))
    given = Path(name).expanduser()
    path = given if given.is_file() else _find_checkpoint(folder)
    state: Any = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path).get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no 'state_dict' of tensors: it is no checkpoint of this model")
    state, description = stable_audio.unwrap_state(state), f"the model in {str(path)!r}"
    check_finite(state, description)
    unet = _build_unet(config, stable_audio.unet_state(state), description)
    autoencoder = OobleckAutoencoder.load(
        config.autoencoder, stable_audio.autoencoder_state(state, config.autoencoder), description
    )
    embeddings = {name: _seconds_embedding(state, name, config, description) for name in config.number_ranges}
    clap = folder / _check_inside(config.clap_path or CLAP_FILE, folder)
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
        tokenizer_folder = folder
    else:
        tokenizer_folder = fetch(tokenizer, TOKENIZER_FILES, license="MIT", download_size=1_400_000).folder
    text_encoder = ClapTextEncoder.load(clap, tokenizer_folder, layer=config.clap_layer)
    _check_sizes(config, unet, text_encoder, description)
    weights = (info, WeightsInfo("CLAP (text branch)", clap.parent, license=CLAP_LICENSE))
    return SoniqueComponents(config, unet, autoencoder, text_encoder, embeddings, weights)


def _find_weights(name: str) -> WeightsInfo:
    places = [Path(name).expanduser(), *(root / name for root in checkpoint_folders())]
    if name == DEFAULT_NAME and not any(place.is_dir() for place in places):
        raise DependencyError(
            f"SONIQUE's weights are not here: unpack the archive that {PAGE} links to, and put its {CONFIG_FILE} "
            f"beside, in {str(places[1])!r}, or give another folder as `generator.model`"
        )
    if places[0].is_file():
        folder = places[0].parent
        folder = folder.parent if folder.name == CHECKPOINT_DIR else folder
        return replace(fetch(str(folder), (CONFIG_FILE,), license=LICENSE), name=name)
    return fetch(name, (CONFIG_FILE,), license=LICENSE)


def _find_checkpoint(folder: Path) -> Path:
    places = [sorted(place.glob("*")) for place in (folder / CHECKPOINT_DIR, folder)]
    files = next(filter(None, ([path for path in place if path.suffix in SUFFIXES] for place in places)), [])
    if not files:
        places = f"{str(folder / CHECKPOINT_DIR)!r} or {str(folder)!r}"
        raise DependencyError(f"the model's checkpoint, .ckpt or .safetensors, is not in {places}: put it there")
    if len(files) > 1:
        names = truncate_list([path.name for path in files])
        raise DependencyError(f"{str(files[0].parent)!r} holds {names}: give one of these files as `generator.model`")
    return files[0]


def _check_inside(name: str, folder: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DependencyError(f"{str(folder / CONFIG_FILE)!r} names a file outside its folder and is refused: {name!r}")
    return path


def _build_unet(config: StableAudioConfig, state: Mapping[str, Tensor], description: str) -> UNet:
    try:
        unet_config = UNetConfig(**config.unet)
        problems = unet_config.problems()
    except TypeError as error:
        raise DependencyError(f"the settings of {description} make no U-Net ({error})") from error
    if problems:
        raise DependencyError(f"the settings of {description} make no U-Net: {'; '.join(problems)}")
    with torch.device("meta"):
        unet = UNet(unet_config)
    load_strict(unet, state, description, assign=True)
    return unet.eval().requires_grad_(False)


def _seconds_embedding(state: Mapping[str, Tensor], name: str, config: StableAudioConfig, description: str) -> Tensor:
    low, high = config.number_ranges[name]
    table = stable_audio.number_embedding_state(state, name).get("weight")
    shape = (high - low + 1, config.unet["context_dim"])
    if table is None or table.shape != shape:
        raise DependencyError(f"{description} has no table {shape} for {name}")
    return table


def _check_sizes(config: StableAudioConfig, unet: UNet, text_encoder: ClapTextEncoder, description: str) -> None:
    num_tokens, sizes = text_encoder.max_tokens + len(config.number_ranges), unet.config
    if (text_encoder.dim, num_tokens) != (sizes.context_dim, sizes.num_tokens):
        raise DependencyError(
            f"{description} reads {sizes.num_tokens} tokens of {sizes.context_dim} numbers, its conditions are "
            f"{num_tokens} of {text_encoder.dim}"
        )
    if config.window_samples % (config.hop_length * sizes.frame_multiple):
        raise DependencyError(f"{description} cannot make windows of {config.window_samples} samples")
