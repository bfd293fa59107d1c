"""Demucs, which takes a recording apart into voice, drums, bass and what is left: as its authors publish it.

Rouard et al., "Hybrid Transformers for Music Source Separation" (2023). Published are a safetensors file on the hub
with the model's class and arguments as JSON in its metadata, and before that the same as a pickle, 955717e8-8726e21a.th
(the name ends in its SHA-256). Neither may name anything but the two classes below. A YAML may unite several models.

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
from safetensors import SafetensorError, safe_open

from v2m.core.errors import DependencyError
from v2m.core.types import Audio, WeightsInfo
from v2m.media.audio import resample
from v2m.pretrained import weights
from v2m.pretrained.safe_load import check_finite, load_strict, read_pickle, read_yaml

try:
    from demucs.apply import BagOfModels, TensorChunk, apply_model
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs
except ImportError as error:
    raise DependencyError(f"voices are told from music by the package demucs ({error}): pip install demucs") from error

REPOSITORY, LICENSE, DOWNLOAD_SIZE = "adefossez/HTDemucs", "MIT", 84_000_000
FILES = ("*.yaml|", "*.safetensors|*.th")
PUBLISHED_FILES = "they are htdemucs.yaml and 955717e8.safetensors; or, from older days, 955717e8-8726e21a.th alone"
VOCALS = "vocals"
MODEL_CLASSES: dict[str, Any] = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (HTDemucs, HDemucs)}
OVERLAP = 0.25  # of a segment with the next, as published


def fetch(name: str = REPOSITORY) -> WeightsInfo:
    """The folder of such models. Raises MissingError where they are not here and cannot be fetched."""
    if name != REPOSITORY:
        return weights.fetch(name, FILES)
    try:
        return weights.fetch(name, FILES, license=LICENSE, download_size=DOWNLOAD_SIZE)
    except DependencyError as error:
        raise DependencyError(f"{error} ({PUBLISHED_FILES})") from error


def find_local() -> WeightsInfo | None:
    """The published ones, if they are on this machine."""
    return weights.find_local(REPOSITORY, FILES, license=LICENSE)


class Demucs:
    """The models of one folder, on one device. `sources` are the names of the stems."""

    def __init__(self, bag: BagOfModels, device: torch.device) -> None:
        self.sources: tuple[str, ...] = tuple(bag.sources)
        self.sample_rate: int = bag.samplerate
        self._bag, self._device = bag.to(device).eval().requires_grad_(False), device
        models: Any = bag.models
        self._segment_samples = min(
            int(each.segment * each.samplerate) for each in models
        )  # samples, as the package counts

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Demucs:
        """Raises MissingError where the folder holds no such model, or files are missing, broken or do not fit."""
        told = sorted(folder.glob("*.yaml"))
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.th")])
        if len(told) > 1 or (not told and len(files) != 1):
            raise DependencyError(
                f"{str(folder)!r} must hold one .yaml that names its models, or one .safetensors or .th file, not "
                f"{len(told)} and {len(files)}: copy {REPOSITORY} there"
            )
        about: dict[str, Any] = read_yaml(told[0]) if told else {"models": [files[0].stem]}
        try:
            models = [_load_model(_find_file(folder, str(name))) for name in about["models"]]
            bag = BagOfModels(models, about.get("weights"), about.get("segment"))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DependencyError(f"{str(folder)!r}: its models do not go together ({_one_line(error)})") from error
        found = cls(bag, device)
        if VOCALS not in found.sources or bag.audio_channels != 2:
            raise DependencyError(f"{str(folder)!r} tells {', '.join(found.sources)} apart, and no voice in stereo")
        return found

    @property
    def non_vocal_stems(self) -> tuple[str, ...]:
        """All stems but the voice."""
        return tuple(each for each in self.sources if each != VOCALS)

    @torch.inference_mode()
    def extract_stems(self, audio: Audio, stems: Sequence[str]) -> Audio:
        """The sum of `stems` in a sound of any rate and length: stereo at the model's rate, of the same duration.

        Segments overlap and fade into each other as in the package's `apply_model` without random shifts, so that the
        same sound gives the same. Besides twice the sound only one segment is in memory at a time.
        """
        mix = torch.from_numpy(resample(audio, self.sample_rate).samples)[None]  # (1, C, N)
        wanted = [self.sources.index(each) for each in stems]
        total, long = mix.shape[2], self._segment_samples
        ramp = torch.minimum(torch.arange(1, long + 1), torch.arange(long, 0, -1)) / ((long + 1) // 2)
        kept, weight = torch.zeros(mix.shape[1:]), torch.zeros(total)
        for start in range(0, total, int((1 - OVERLAP) * long)):
            chunk = TensorChunk(mix, start, long)
            found = apply_model(self._bag, chunk, shifts=0, split=False, device=self._device)[0]  # (S, C, n)
            end = start + found.shape[2]
            kept[:, start:end] += found[wanted].sum(dim=0).cpu() * ramp[: end - start]
            weight[start:end] += ramp[: end - start]
        return Audio(np.ascontiguousarray(kept.div_(weight).numpy()), self.sample_rate)


def _find_file(folder: Path, name: str) -> Path:
    """Of the model that a YAML calls `name`."""
    plain = [folder / f"{name}{suffix}" for suffix in (".safetensors", ".th")]
    found = next((each for each in [*plain, *sorted(folder.glob(f"{name}-*.th"))] if each.is_file()), None)
    if found is None or found.parent != folder:
        raise DependencyError(f"{str(folder)!r} lacks {name}.safetensors: copy {REPOSITORY} there again")
    return found


def _load_model(path: Path) -> Any:
    held = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    kind, state = MODEL_CLASSES.get(held["klass"]), held["state"]
    if kind is None:
        raise DependencyError(
            f"{str(path)!r} asks for {held['klass']!r} and is refused: only {', '.join(MODEL_CLASSES)} are read"
        )
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds quantized weights, which are not read: give {REPOSITORY}")
    known = inspect.signature(kind).parameters  # the package too leaves out what it no longer knows
    try:
        model = kind(*held["args"], **{name: value for name, value in held["kwargs"].items() if name in known})
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise DependencyError(f"{str(path)!r} describes a model that cannot be ({_one_line(error)})") from error
    check_finite(state, f"Demucs ({str(path)!r})")
    load_strict(model, state, f"the Demucs that {str(path)!r} describes")
    return model


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = None if "structure" in about else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        made = {name: json.loads(about[name], object_hook=_parse_fraction) for name in ("args", "kwargs")}
        return {"klass": about["klass"], "state": state, **made}
    except (SafetensorError, KeyError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DependencyError(f"{str(path)!r} is no Demucs ({_one_line(error)}): download it again") from error


def _read_pickle(path: Path) -> dict[str, Any]:
    sign = path.stem.partition("-")[2]
    with path.open("rb") as file:
        if sign and not hashlib.file_digest(file, "sha256").hexdigest().startswith(sign):
            raise DependencyError(
                f"{str(path)!r} is not the file that its name says (another SHA-256): download it again"
            )
    held = read_pickle(path, [*MODEL_CLASSES.values(), Fraction])
    if not {"klass", "args", "kwargs", "state"} <= held.keys():
        raise DependencyError(f"{str(path)!r} is no Demucs: it lacks klass, args, kwargs or state")
    return {
        **held,
        "klass": next((name for name, kind in MODEL_CLASSES.items() if held["klass"] is kind), str(held["klass"])),
    }


def _parse_fraction(value: Mapping[str, Any]) -> Any:
    return Fraction(value["numerator"], value["denominator"]) if value.get("_type") == "fraction" else value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
