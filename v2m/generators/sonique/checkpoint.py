"""SONIQUE's weights, as its author's archive unpacks into a copy of the project: which files, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from v2m.core.errors import DependencyError
from v2m.core.types import WeightsInfo
from v2m.generators.sonique.unet import UNet, UNetConfig
from v2m.mappings import stable_audio
from v2m.mappings.stable_audio import StableAudioConfig
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder
from v2m.pretrained.file_patterns import checkpoint_folders
from v2m.pretrained.safe_load import check_finite, load_strict, read_json, read_pickle
from v2m.pretrained.text.clap import ClapTextEncoder
from v2m.pretrained.weights import fetch

CONFIG_FILE, CHECKPOINT_DIR, CLAP_FILE = "best_model.json", "ckpts", "ckpts/clap/clap.ckpt"
DEFAULT_NAME = "sonique"
PAGE = "github.com/zxxwxyyy/sonique"
LICENSE = "MIT (of the repository; the archive of weights names none)"
CLAP_LICENSE = "CC0-1.0"
TOKENIZER_FILES = ("tokenizer.json|vocab.json", "tokenizer.json|merges.txt")


@dataclass(frozen=True)
class SoniqueComponents:
    """The model in its parts, on the CPU; `tables` (numbers, D) are what the seconds are told by."""

    settings: StableAudioConfig
    unet: UNet
    autoencoder: OobleckAutoencoder
    text_encoder: ClapTextEncoder
    seconds_embeddings: Mapping[str, Tensor]
    weights: tuple[WeightsInfo, ...]


def load_components(name: str, tokenizer: str) -> SoniqueComponents:
    """From a folder; the tokenizer from the same, or as it is named.

    Raises:
        DependencyError: Weights are missing, broken, or do not belong together; says which.
    """
    found = _find_weights(name)
    folder = found.folder
    settings = stable_audio.parse_config(read_json(folder / CONFIG_FILE))
    path = _find_checkpoint(folder)
    state = read_pickle(path).get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no 'state_dict' of tensors: it is no checkpoint of this model")
    state, what = stable_audio.unwrap_state(state), f"the model in {str(path)!r}"
    check_finite(state, what)
    unet = _build_unet(settings, stable_audio.unet_state(state), what)
    autoencoder = OobleckAutoencoder.load(
        settings.autoencoder, stable_audio.autoencoder_state(state, settings.autoencoder), what
    )
    tables = {each: _seconds_embedding(state, each, settings, what) for each in settings.number_ranges}
    clap = folder / _check_inside(settings.clap_path or CLAP_FILE, folder)
    words = folder if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file() else None
    words = words or fetch(tokenizer, TOKENIZER_FILES, license="MIT", download_size=1_400_000).folder
    text = ClapTextEncoder.load(clap, words, layer=settings.clap_layer)
    _check_sizes(settings, unet, text, what)
    weights = (found, WeightsInfo("CLAP (text branch)", clap.parent, license=CLAP_LICENSE))
    return SoniqueComponents(settings, unet, autoencoder, text, tables, weights)


def _find_weights(name: str) -> WeightsInfo:
    places = [Path(name).expanduser(), *(root / name for root in checkpoint_folders())]
    if name == DEFAULT_NAME and not any(place.is_dir() for place in places):
        raise DependencyError(
            f"SONIQUE's weights are not here: unpack the archive that {PAGE} links to, and put its {CONFIG_FILE} beside, "
            f"in {str(places[1])!r}, or name another folder with --generator.model"
        )
    return fetch(name, (CONFIG_FILE,), license=LICENSE)


def _find_checkpoint(folder: Path) -> Path:
    there = sorted((folder / CHECKPOINT_DIR).glob("*.ckpt")) or sorted(folder.glob("*.ckpt"))
    if len(there) != 1:
        names = ", ".join(path.name for path in there) or "none"
        raise DependencyError(
            f"{str(folder / CHECKPOINT_DIR)!r} must hold the one checkpoint (.ckpt) of the model, not {names}"
        )
    return there[0]


def _check_inside(name: str, folder: Path) -> PurePosixPath:
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts:
        raise DependencyError(f"{str(folder / CONFIG_FILE)!r} names a file outside its folder and is refused: {name!r}")
    return inner


def _build_unet(settings: StableAudioConfig, state: Mapping[str, Tensor], what: str) -> UNet:
    try:
        sizes = UNetConfig(**settings.unet)
        problems = sizes.problems()
    except TypeError as error:
        raise DependencyError(f"the settings of {what} make no U-Net ({error})") from error
    if problems:
        raise DependencyError(f"the settings of {what} make no U-Net: {'; '.join(problems)}")
    with torch.device("meta"):
        made = UNet(sizes)
    load_strict(made, state, what, assign=True)
    return made.eval().requires_grad_(False)


def _seconds_embedding(state: Mapping[str, Tensor], name: str, settings: StableAudioConfig, what: str) -> Tensor:
    low, high = settings.number_ranges[name]
    found = stable_audio.number_embedding_state(state, name).get("weight")
    wanted = (high - low + 1, settings.unet["context"])
    if found is None or found.shape != wanted:
        raise DependencyError(f"{what} has no table {wanted} for {name}")
    return found


def _check_sizes(settings: StableAudioConfig, unet: UNet, text: ClapTextEncoder, what: str) -> None:
    told, sizes = text.max_tokens + len(settings.number_ranges), unet.config
    if (text.dim, told) != (sizes.context, sizes.tokens):
        raise DependencyError(
            f"{what} reads {sizes.tokens} tokens of {sizes.context} numbers, its conditions are {told} of {text.dim}"
        )
    if settings.window_samples % (settings.hop_length * sizes.frame_multiple):
        raise DependencyError(f"{what} cannot make windows of {settings.window_samples} samples")
