"""EnCodec loading, from any of its published layouts; the codec of MusicGen and VidMuse.

The 32 kHz model gives 50 frames a second of 4 codebooks; transformers has the model. The 24 and 48 kHz models of the
authors' own package, one file each, are loaded by `encodec_package`.
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
    """Load the codec in `folder`, in float32; its files identify the layout.

    Args:
        folder: Holds transformers' config.json and weights; or audiocraft's `compression_state_dict.bin`, which may
            only say where the codec is to be fetched; or is, or holds, a file of the original package.
        device: The target device.
        config, state: Replace the files, in transformers' layout, for a codec stored inside another checkpoint.
        bandwidth: Thousands of bits a second; None is the most that the model offers, and so all its codebooks.

    Raises:
        DependencyError: The folder holds no EnCodec, or files are missing, broken or do not fit; says which.
        UsageError: The model does not offer `bandwidth`.
    """
    from v2m.pretrained.codecs import encodec_package

    if config is None:
        file = encodec_package.find_file(folder)
        if file is not None:
            return encodec_package.load_package_model(file, device, bandwidth=bandwidth)
        if not (folder / "config.json").is_file() and (folder / AUDIOCRAFT_FILE).is_file():
            source = read_compression_file(folder / AUDIOCRAFT_FILE)
            if isinstance(source, str):
                return load_encodec(weights.fetch(source, FILES).folder, device, bandwidth=bandwidth)
            config, state = source
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
    """Read audiocraft's `compression_state_dict.bin`: a codec's name, or its config and state dict.

    Raises:
        DependencyError: The file is missing, broken, or none of these.
    """
    payload = read_pickle(path)
    name = payload.get("pretrained")
    if isinstance(name, str):
        if name.startswith("dac_"):
            raise DependencyError(f"{str(path)!r} asks for the codec {name!r}, which is no EnCodec: it is not read")
        return name
    state, text = payload.get("best_state"), payload.get("xp.cfg")
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
    """Wrap transformers' model (of type Any: pyright takes the modules of such models for tensors)."""
    config = model.config
    bandwidths = list(config.target_bandwidths)
    if bandwidth is not None and bandwidth not in bandwidths:
        raise UsageError(
            f"the codec {name!r} offers {', '.join(f'{value:g}' for value in bandwidths)} kbit/s, not {bandwidth:g}"
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
