"""Demucs source separation (vocals, drums, bass, other), from the files that its authors publish.

Rouard et al., "Hybrid Transformers for Music Source Separation" (2023). The hub has a safetensors file with the
model's class and arguments as JSON in its metadata; older releases are a pickle of the same, 955717e8-8726e21a.th (the
name ends in its SHA-256). Both may name only the two classes below. A YAML may combine several models.

S stems, C channels (2), N samples.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demucs.apply import BagOfModels, TensorChunk, apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors import SafetensorError, safe_open

from v2m.core.errors import DependencyError, error_text
from v2m.core.types import Audio, WeightsInfo
from v2m.media.audio import resample
from v2m.pretrained import weights
from v2m.pretrained.safe_load import check_finite, load_strict, read_pickle, read_yaml

REPOSITORY, LICENSE, DOWNLOAD_SIZE = "adefossez/HTDemucs", "MIT", 84_000_000
FILES = ("*.yaml|", "*.safetensors|*.th")
PUBLISHED_FILES = "they are htdemucs.yaml and 955717e8.safetensors; or, from older days, 955717e8-8726e21a.th alone"
VOCALS = "vocals"
MODEL_CLASSES: dict[str, Any] = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (HTDemucs, HDemucs)}
OVERLAP = 0.25  # share of a segment that the next one overlaps, as published


def fetch(name: str = REPOSITORY) -> WeightsInfo:
    """Return the folder of Demucs models, downloading them if needed."""
    if name != REPOSITORY:
        return weights.fetch(name, FILES)
    try:
        return weights.fetch(name, FILES, license=LICENSE, download_size=DOWNLOAD_SIZE)
    except DependencyError as error:
        raise DependencyError(f"{error} ({PUBLISHED_FILES})") from error


def find_local() -> WeightsInfo | None:
    """The published models, if they are on this machine."""
    return weights.find_local(REPOSITORY, FILES, license=LICENSE)


class Demucs:
    """The models of one folder, on a device. `sources` are the names of the stems."""

    def __init__(self, bag: BagOfModels, device: torch.device) -> None:
        self.sources: tuple[str, ...] = tuple(bag.sources)
        self.sample_rate: int = bag.samplerate
        self._bag, self._device = bag.to(device).eval().requires_grad_(False), device
        models: Any = bag.models
        self._segment_samples = min(int(model.segment * model.samplerate) for model in models)  # as the package counts

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Demucs:
        """Load the models of a folder, which must separate vocals in stereo."""
        descriptions = sorted(folder.glob("*.yaml"))
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.th")])
        if len(descriptions) > 1 or (not descriptions and len(files) != 1):
            raise DependencyError(
                f"{str(folder)!r} must hold one .yaml that names its models, or one .safetensors or .th file, not "
                f"{len(descriptions)} and {len(files)}: copy {REPOSITORY} there"
            )
        bag_config: dict[str, Any] = read_yaml(descriptions[0]) if descriptions else {"models": [files[0].stem]}
        try:
            models = [_load_model(_find_file(folder, str(name))) for name in bag_config["models"]]
            bag = BagOfModels(models, bag_config.get("weights"), bag_config.get("segment"))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            message = f"{str(folder)!r}: its models do not go together ({error_text(error, 120)})"
            raise DependencyError(message) from error
        model = cls(bag, device)
        if VOCALS not in model.sources or bag.audio_channels != 2:
            raise DependencyError(f"{str(folder)!r} separates {', '.join(model.sources)}, but no vocals in stereo")
        return model

    @property
    def non_vocal_stems(self) -> tuple[str, ...]:
        return tuple(name for name in self.sources if name != VOCALS)

    @torch.inference_mode()
    def extract_stems(self, audio: Audio, stems: Sequence[str]) -> Audio:
        """Extract the sum of `stems` from any audio: stereo, at the model's rate, of the same duration.

        Segments overlap and crossfade as in the package's `apply_model`, without random shifts: the same audio gives
        the same result. Memory holds twice the audio plus one segment.
        """
        mix = torch.from_numpy(resample(audio, self.sample_rate).samples)[None]  # (1, C, N)
        indices = [self.sources.index(name) for name in stems]
        total, segment = mix.shape[2], self._segment_samples
        ramp = torch.minimum(torch.arange(1, segment + 1), torch.arange(segment, 0, -1)) / ((segment + 1) // 2)
        stem_sum, weight = torch.zeros(mix.shape[1:]), torch.zeros(total)
        for start in range(0, total, int((1 - OVERLAP) * segment)):
            chunk = TensorChunk(mix, start, segment)
            separated = apply_model(self._bag, chunk, shifts=0, split=False, device=self._device)[0]  # (S, C, n)
            end = start + separated.shape[2]
            stem_sum[:, start:end] += separated[indices].sum(dim=0).cpu() * ramp[: end - start]
            weight[start:end] += ramp[: end - start]
        return Audio(np.ascontiguousarray(stem_sum.div_(weight).numpy()), self.sample_rate)


def _find_file(folder: Path, name: str) -> Path:
    """File of the model that a YAML names `name`."""
    exact = [folder / f"{name}{suffix}" for suffix in (".safetensors", ".th")]
    paths = [*exact, *sorted(folder.glob(f"{name}-*.th"))]
    path = next((path for path in paths if path.is_file()), None)
    if path is None or path.parent != folder:
        raise DependencyError(f"{str(folder)!r} lacks {name}.safetensors: copy {REPOSITORY} there again")
    return path


def _load_model(path: Path) -> Any:
    payload = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    kind, state = MODEL_CLASSES.get(payload["klass"]), payload["state"]
    if kind is None:
        raise DependencyError(
            f"{str(path)!r} asks for {payload['klass']!r} and is refused: only {', '.join(MODEL_CLASSES)} are read"
        )
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds quantized weights, which are not read: give {REPOSITORY}")
    parameters = inspect.signature(kind).parameters  # the package, too, drops arguments that it no longer has
    kwargs = {name: value for name, value in payload["kwargs"].items() if name in parameters}
    try:
        model = kind(*payload["args"], **kwargs)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise DependencyError(f"{str(path)!r} describes an impossible model ({error_text(error, 120)})") from error
    check_finite(state, f"Demucs ({str(path)!r})")
    load_strict(model, state, f"the Demucs that {str(path)!r} describes")
    return model


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = None if "structure" in metadata else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        arguments = {name: json.loads(metadata[name], object_hook=_parse_fraction) for name in ("args", "kwargs")}
        return {"klass": metadata["klass"], "state": state, **arguments}
    except (SafetensorError, KeyError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DependencyError(f"{str(path)!r} is no Demucs ({error_text(error, 120)}): download it again") from error


def _read_pickle(path: Path) -> dict[str, Any]:
    hash_prefix = path.stem.partition("-")[2]
    with path.open("rb") as file:
        if hash_prefix and not hashlib.file_digest(file, "sha256").hexdigest().startswith(hash_prefix):
            message = f"{str(path)!r} is not the file that its name says (another SHA-256): download it again"
            raise DependencyError(message)
    payload = read_pickle(path, [*MODEL_CLASSES.values(), Fraction])
    if not {"klass", "args", "kwargs", "state"} <= payload.keys():
        raise DependencyError(f"{str(path)!r} is no Demucs: it lacks klass, args, kwargs or state")
    name = next((name for name, kind in MODEL_CLASSES.items() if payload["klass"] is kind), str(payload["klass"]))
    return {**payload, "klass": name}


def _parse_fraction(value: Mapping[str, Any]) -> Any:
    return Fraction(value["numerator"], value["denominator"]) if value.get("_type") == "fraction" else value
