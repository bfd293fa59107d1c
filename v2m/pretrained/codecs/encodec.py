"""EnCodec, the codec that MusicGen and VidMuse speak, from any of the layouts that it is published in.

The 32 kHz model gives 50 frames a second of 4 codebooks. transformers has the model; the authors' own package, whose
24 and 48 kHz models come as one file each, has its own room.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import EncodecModel

from v2m.core.errors import DependencyError, UsageError
from v2m.core.timing import sample_count
from v2m.core.types import CodecSpec
from v2m.mappings import encodec as convert
from v2m.pretrained import transformers_loader, weights
from v2m.pretrained.codecs.base import CodecModules, EnCodec, InterleavedStereoCodec, fuse_weight_norm
from v2m.pretrained.safe_load import check_finite, read_pickle, read_state_dict

__all__ = ["AUDIOCRAFT_FILE", "FILES", "EnCodec", "InterleavedStereoCodec", "load_encodec", "read_compression_file"]

AUDIOCRAFT_FILE = "compression_state_dict.bin"
FILES = ("config.json", "model.safetensors|pytorch_model.bin")  # of a repository in transformers' layout


def load_encodec(
    folder: Path,
    device: torch.device,
    *,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    bandwidth: float | None = None,
) -> EnCodec:
    """The codec in `folder`, in float32: its files tell in which layout.

    Args:
        folder: Holds transformers' config.json and weights; or audiocraft's `compression_state_dict.bin`, which may
            only say where the codec is to be fetched; or is, or holds, a file of the original package.
        device: Where it is to run.
        config, state: Take the place of the files, in transformers' layout: of a codec that came inside another file.
        bandwidth: Thousands of bits a second; None is the most that the model offers, and so all its codebooks.

    Raises:
        MissingError: The folder holds no EnCodec, or files are missing, broken or do not fit; says which.
        UsageError: The model does not offer `bandwidth`.
    """
    from v2m.pretrained.codecs import encodec_package

    if config is None:
        file = encodec_package.find_file(folder)
        if file is not None:
            return encodec_package.load_package_model(file, device, bandwidth=bandwidth)
        if not (folder / "config.json").is_file() and (folder / AUDIOCRAFT_FILE).is_file():
            found = read_compression_file(folder / AUDIOCRAFT_FILE)
            if isinstance(found, str):
                return load_encodec(weights.fetch(found, FILES).folder, device, bandwidth=bandwidth)
            config, state = found
        elif not (folder / "config.json").is_file():
            raise DependencyError(f"{str(folder)!r} holds no codec: neither config.json nor {AUDIOCRAFT_FILE}")
    state = read_state_dict(folder) if state is None else state
    check_finite(state, f"EnCodec ({str(folder)!r})")
    cpu = torch.device("cpu")  # where weights keep all their digits
    model: Any = transformers_loader.load_model(
        EncodecModel, folder, cpu, description="EnCodec", config=config, state=state
    )
    fuse_weight_norm(model)
    return _wrap_model(model.to(device=device, dtype=torch.float32), bandwidth, str(folder))


def read_compression_file(path: Path) -> str | tuple[dict[str, Any], dict[str, Tensor]]:
    """audiocraft's `compression_state_dict.bin` → the name that it only gives; or config and state for `load`.

    Raises:
        MissingError: The file is missing, broken, or none of these.
    """
    held = read_pickle(path)
    name = held.get("pretrained")
    if isinstance(name, str):
        if name.startswith("dac_"):
            raise DependencyError(f"{str(path)!r} asks for the codec {name!r}, which is no EnCodec: it is not read")
        return name
    state, text = held.get("best_state"), held.get("xp.cfg")
    if not isinstance(state, dict) or not isinstance(text, str):
        raise DependencyError(f"{str(path)!r} is no compression model of audiocraft: it lacks best_state or xp.cfg")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r}: its best_state is no plain state dict")
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DependencyError(f"{str(path)!r}: its xp.cfg is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(settings, dict):
        raise DependencyError(f"{str(path)!r}: its xp.cfg holds no settings")
    return convert.config_to_transformers(settings, state), convert.to_transformers(state)


def _wrap_model(model: Any, bandwidth: float | None, name: str) -> EnCodec:
    """(Of type Any: pyright takes the modules of transformers' models for tensors.)"""
    config = model.config
    offered = list(config.target_bandwidths)
    if bandwidth is not None and bandwidth not in offered:
        raise UsageError(
            f"the codec {name!r} offers {', '.join(f'{each:g}' for each in offered)} kbit/s, not {bandwidth:g}"
        )
    codebooks = model.quantizer.get_num_quantizers_for_bandwidth(bandwidth)
    rate, hop = config.sampling_rate, config.hop_length
    if sample_count(1.0, rate) != config.frame_rate * hop:
        raise DependencyError(
            f"the codec {name!r} has no whole number of frames a second: {rate} Hz, {hop} samples each"
        )
    spec = CodecSpec(rate, config.frame_rate, codebooks, config.codebook_size, config.audio_channels)
    chunk = None if config.chunk_length is None else config.chunk_length // hop

    def quantize(embeddings: Tensor) -> Tensor:
        return model.quantizer.encode(embeddings, bandwidth)

    network = CodecModules(
        model.encoder.layers, model.decoder.layers, quantize, model.quantizer.decode, chunk, config.normalize
    )
    return EnCodec(spec, hop, network)
