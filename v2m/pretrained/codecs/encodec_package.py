"""Models of EnCodec's own package (`encodec`): 24 kHz mono and 48 kHz stereo, one file each."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from encodec.model import EncodecModel
from torch import Tensor

from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import CodecSpec
from v2m.pretrained.codecs.base import CodecModules, EnCodec, fuse_weight_norm
from v2m.pretrained.safe_load import check_finite, load_strict, read_tensors

MODEL_NAMES = ("encodec_24khz", "encodec_48khz")
DOWNLOAD_URL = "https://dl.fbaipublicfiles.com/encodec/v0"


def find_file(path: Path) -> Path | None:
    """Find the package's file at or below `path`; None where it has nothing to do with the package.

    A name alone, "encodec_24khz" or "encodec_48khz", is looked for where torch.hub keeps what it downloaded.

    Raises:
        DependencyError: The name is one of the package's, and the file is not here.
    """
    if path.is_file():
        return path if path.name.startswith(MODEL_NAMES) else None
    if path.is_dir():
        files = [file for name in MODEL_NAMES for file in sorted(path.glob(f"{name}*.th"))]
        return files[0] if files and not (path / "config.json").is_file() else None
    if str(path) not in MODEL_NAMES:
        return None
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    files = sorted(cache.glob(f"{path}-*.th"))
    if not files:
        raise DependencyError(
            f"the codec {str(path)!r} is not in {str(cache)!r}: download its file from {DOWNLOAD_URL} into it"
        )
    return files[0]


def load_package_model(path: Path, device: torch.device, *, bandwidth: float | None = None) -> EnCodec:
    """Load the package's model whose weights are in the file `path`, named after the model.

    Args:
        path: Such as `encodec_24khz-d7cc33bc.th`.
        device: The target device.
        bandwidth: Thousands of bits a second; None is the most that the model offers.

    Raises:
        DependencyError: The file is missing, broken, or of another model.
        UsageError: The model does not offer `bandwidth`.
    """
    state = read_tensors(path)
    check_finite(state, f"EnCodec ({str(path)!r})")
    factory = getattr(EncodecModel, path.name[: len("encodec_")] + "model_" + path.name[len("encodec_") :][:5])
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package is built with the deprecated weight norm
        model: Any = factory(pretrained=False)
    load_strict(model, state, f"{path.name[:13]} of the encodec package ({str(path)!r})", assign=True)
    model.requires_grad_(False)
    fuse_weight_norm(model)
    return wrap_model(model.to(device=device, dtype=torch.float32), bandwidth, path.name)


def wrap_model(model: Any, bandwidth: float | None, name: str) -> EnCodec:
    """Wrap a model of the package, of any size."""
    bandwidths = list(model.target_bandwidths)
    if bandwidth is not None and bandwidth not in bandwidths:
        raise UsageError(
            f"the codec {name!r} offers {', '.join(f'{value:g}' for value in bandwidths)} kbit/s, not {bandwidth:g}"
        )
    quantizer, rate = model.quantizer, model.frame_rate
    codebooks = quantizer.get_num_quantizers_for_bandwidth(rate, bandwidth)
    hop = math.prod(model.encoder.ratios)
    spec = CodecSpec(model.sample_rate, rate, codebooks, quantizer.bins, model.channels)

    def quantize(embeddings: Tensor) -> Tensor:
        return quantizer.encode(embeddings, rate, bandwidth)

    chunk = None if model.segment_length is None else model.segment_length // hop
    network = CodecModules(model.encoder.model, model.decoder.model, quantize, quantizer.decode, chunk, model.normalize)
    return EnCodec(spec, hop, network)
