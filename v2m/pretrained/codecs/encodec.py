"""EnCodec loading, from any of its published layouts; the codec of MusicGen and VidMuse.

The 32 kHz model gives 50 frames a second of 4 codebooks; transformers has the model. The authors' own package,
`encodec`, has 24 kHz mono and 48 kHz stereo, one file each.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EncodecModel

from v2m.core.errors import DependencyError, UsageError, prefix_errors
from v2m.core.timing import seconds_to_samples
from v2m.core.types import CodecSpec
from v2m.mappings import encodec as convert
from v2m.pretrained import weights
from v2m.pretrained.audiocraft_package import SETTINGS_GLOBALS, read_package
from v2m.pretrained.codecs.base import CodecModules, EnCodec, InterleavedStereoCodec, fuse_weight_norm
from v2m.pretrained.safe_load import check_finite, load_strict, read_pickle, read_state_dict, read_tensors
from v2m.pretrained.transformers_loader import CPU, load_model

__all__ = ["AUDIOCRAFT_FILE", "FILES", "EnCodec", "InterleavedStereoCodec", "load_encodec", "read_compression_file"]

AUDIOCRAFT_FILE = "compression_state_dict.bin"
FILES = ("config.json", "model.safetensors|pytorch_model.bin")  # of a repository in transformers' layout
PACKAGE_MODELS = ("encodec_24khz", "encodec_48khz")
PACKAGE_URL = "https://dl.fbaipublicfiles.com/encodec/v0"


def load_encodec(
    folder: Path,
    device: torch.device,
    *,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    bandwidth: float | None = None,
) -> EnCodec:
    """Load the codec in `folder`, in float32; its files identify the layout.

    It holds transformers' config.json and weights; or audiocraft's `compression_state_dict.bin`, which may only say
    where the codec is to be fetched; or it is, or holds, a file of the original package. `bandwidth` is thousands of
    bits a second (UsageError if the model does not offer it); None is the most, and so all codebooks.
    """
    if config is None:
        file = _find_package_file(folder)
        if file is not None:
            model = _load_package_model(file).to(device=device, dtype=torch.float32)
            return wrap_package_model(model, bandwidth, file.name)
        if not (folder / "config.json").is_file() and (folder / AUDIOCRAFT_FILE).is_file():
            source = read_compression_file(folder / AUDIOCRAFT_FILE)
            if isinstance(source, str):
                return load_encodec(weights.fetch(source, FILES).folder, device, bandwidth=bandwidth)
            config, state = source
        elif not (folder / "config.json").is_file():
            raise DependencyError(
                f"{str(folder)!r} holds no codec: neither config.json nor {AUDIOCRAFT_FILE}; fetch one"
            )
    state = read_state_dict(folder) if state is None else state
    check_finite(state, f"EnCodec ({str(folder)!r})")
    model: Any = load_model(EncodecModel, folder, CPU, description="EnCodec", config=config, state=state)
    fuse_weight_norm(model)
    return _wrap_model(model.to(device=device, dtype=torch.float32), bandwidth, str(folder))


def read_compression_file(path: Path) -> str | tuple[dict[str, Any], dict[str, Tensor]]:
    """Read audiocraft's `compression_state_dict.bin`: a codec's name, or its config and state dict."""
    payload = read_pickle(path, SETTINGS_GLOBALS)
    name = payload.get("pretrained")
    if isinstance(name, str):
        if name.startswith("dac_"):
            raise DependencyError(f"{str(path)!r} asks for the codec {name!r}, which is no EnCodec: it is not read")
        return name
    settings, state = read_package(path)
    with prefix_errors(path):
        return convert.config_to_transformers(settings, state), convert.to_transformers(state)


def wrap_package_model(model: Any, bandwidth: float | None, name: str) -> EnCodec:
    """Wrap a model of the `encodec` package, of any size."""
    _check_bandwidth(bandwidth, model.target_bandwidths, name)
    quantizer, rate = model.quantizer, model.frame_rate
    codebooks = quantizer.get_num_quantizers_for_bandwidth(rate, bandwidth)
    hop = math.prod(model.encoder.ratios)
    spec = CodecSpec(model.sample_rate, rate, codebooks, quantizer.bins, model.channels)
    quantize = partial(quantizer.encode, sample_rate=rate, bandwidth=bandwidth)  # its rate is that of frames
    chunk = None if model.segment_length is None else model.segment_length // hop
    modules = CodecModules(model.encoder.model, model.decoder.model, quantize, quantizer.decode, chunk, model.normalize)
    return EnCodec(spec, hop, modules)


def _wrap_model(model: Any, bandwidth: float | None, name: str) -> EnCodec:
    """Wrap transformers' model (of type Any: pyright takes the modules of such models for tensors)."""
    config, quantizer = model.config, model.quantizer
    _check_bandwidth(bandwidth, config.target_bandwidths, name)
    codebooks = quantizer.get_num_quantizers_for_bandwidth(bandwidth)
    rate, hop = config.sampling_rate, config.hop_length
    if seconds_to_samples(1.0, rate) != config.frame_rate * hop:
        message = f"the codec {name!r} has no whole number of frames a second: {rate} Hz, {hop} samples each"
        raise DependencyError(message)
    spec = CodecSpec(rate, config.frame_rate, codebooks, config.codebook_size, config.audio_channels)
    quantize = partial(quantizer.encode, bandwidth=bandwidth)
    chunk = None if config.chunk_length is None else config.chunk_length // hop
    layers = model.encoder.layers, model.decoder.layers
    return EnCodec(spec, hop, CodecModules(*layers, quantize, quantizer.decode, chunk, config.normalize))


def _check_bandwidth(bandwidth: float | None, offered: Sequence[float], name: str) -> None:
    if bandwidth is not None and bandwidth not in offered:
        message = f"the codec {name!r} offers {', '.join(f'{value:g}' for value in offered)} kbit/s, not {bandwidth:g}"
        raise UsageError(message)


def _find_package_file(path: Path) -> Path | None:
    """File of the package at or below `path`; None where it has nothing to do with the package.

    A name alone, "encodec_24khz" or "encodec_48khz", is looked for where torch.hub keeps what it downloaded.
    """
    if path.is_file():
        return path if path.name.startswith(PACKAGE_MODELS) else None
    if path.is_dir():
        files = [file for name in PACKAGE_MODELS for file in sorted(path.glob(f"{name}*.th"))]
        return files[0] if files and not (path / "config.json").is_file() else None
    if str(path) not in PACKAGE_MODELS:
        return None
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    files = sorted(cache.glob(f"{path}-*.th"))
    if not files:
        message = f"the codec {str(path)!r} is not in {str(cache)!r}: download its file from {PACKAGE_URL} into it"
        raise DependencyError(message)
    return files[0]


def _load_package_model(path: Path) -> Any:
    """Load the package's model that the file is named after, such as `encodec_24khz-d7cc33bc.th`."""
    from encodec.model import EncodecModel as PackageModel

    state = read_tensors(path)
    check_finite(state, f"EnCodec ({str(path)!r})")
    name = next(name for name in PACKAGE_MODELS if path.name.startswith(name))
    factory = getattr(PackageModel, name.replace("_", "_model_"))  # such as encodec_model_24khz
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package is built with the deprecated weight norm
        model: Any = factory(pretrained=False)
    load_strict(model, state, f"{name} of the encodec package ({str(path)!r})", assign=True)
    model.requires_grad_(False)
    fuse_weight_norm(model)
    return model
