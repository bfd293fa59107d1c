"""How `predict` writes music for videos with a model that is in memory: from tags to file as `infer.py` does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from v2m.checkpoints import V2M
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, SamplingConfig, Tags, Video
from v2m.data.predict_data import VideoJob
from v2m.generators.in_memory import InMemoryGenerator
from v2m.generators.musicgen.options import Precision
from v2m.media.video import Limits
from v2m.mixing.mixer import MixConfig
from v2m.pipeline import batch
from v2m.pipeline.batch import VideoResult


@dataclass(frozen=True)
class PredictConfig:
    """What of it can be chosen.

    Args:
        seed: The same gives the same music.
        tags: Hints: every field set here wins over the tagger's.
        sampling: How codes are drawn.
        window: Seconds that are written in one go; None is what the model was trained on.
        stride: Seconds from one window to the next; None is 0.6 windows.
        precision: Of the language model's weights; None is what suits the device.
        mix: How the music meets the clip's own sound, and how loud.
        limits: What input to accept.
        overwrite: Whether files that exist may be replaced; else what is done is left alone.
        keep_tagger: Whether the tagger stays in memory beside the model that writes.
    """

    seed: int = 0
    tags: Tags = field(default_factory=Tags)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    window: float | None = None
    stride: float | None = None
    precision: Precision | None = None
    mix: MixConfig = field(
        default_factory=lambda: MixConfig(fade_out=1.5)
    )  # the music does not know where the video ends
    limits: Limits = field(default_factory=Limits)
    overwrite: bool = False
    keep_tagger: bool = True


def build_predictor(
    model: V2M, name: str, tagger: Tagger, how: PredictConfig, *, device: torch.device, chosen: Any
) -> Callable[[VideoJob], VideoResult]:
    """Gives a video music, and says how that ended.

    Args:
        model: Writes the music, on `device`.
        name: Its own, for the sidecar.
        tagger: Says what music would fit.
        how: The rest that can be chosen.
        device: Where the work is done.
        chosen: How the tagger is said in the sidecar.

    Raises:
        UsageError, DependencyError: As of `Trained`, and of the tagger's `prepare`.
    """
    given = {"sampling": how.sampling, "window": how.window, "stride": how.stride, "precision": how.precision}
    generator = InMemoryGenerator(model, name, device, **given)
    place_tagger(tagger, device)
    kept = _KeptTagger(tagger) if how.keep_tagger else tagger
    about = {key: value for key, value in asdict(how).items() if key not in {"overwrite", "keep_tagger"}}
    about |= {"tagger": chosen, "weights_sha256": model_sha256(model), "origin": model.origin, "license": model.license}
    arguments = {"tags": how.tags, "mix": how.mix, "start": how.mix.start, "end": how.mix.end, "limits": how.limits}

    def score(turn: VideoJob) -> VideoResult:
        turn.folder.mkdir(parents=True, exist_ok=True)
        with torch.autocast(device.type, enabled=False):  # training's would make other music than infer.py's
            row = batch.process_video(
                turn.video, turn.folder, about, how.overwrite, turn.twin, tagger=kept, generator=generator,
                seed=how.seed, provenance={"recipe": name, "settings": about}, **arguments,
            )  # fmt: skip
        detail = row.detail.replace("--overwrite", "--model.scoring.overwrite true").replace("--out", "--data.out")
        return row._replace(detail=detail)

    return score


def place_tagger(tagger: Tagger, device: torch.device) -> None:
    """Puts a tagger that may work anywhere on this rank's device, and makes sure that its weights are here."""
    if getattr(tagger, "device", None) == "auto":
        tagger.device = device_string(device)  # type: ignore[attr-defined]
    if prepare := getattr(tagger, "prepare", None):
        prepare()


def device_string(device: torch.device) -> str:
    """As `v2m.core.lazy_model.choose_device` takes it."""
    return str(device) if device.type == "cuda" else device.type


def model_sha256(model: V2M) -> str:
    """SHA-256 of all weights with their names, and of the sizes."""
    found = hashlib.sha256(repr(model.config.to_dict()).encode())
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


class _KeptTagger:
    """A tagger that is not freed between two videos."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        return self._tagger.tag(video, hints, progress)

    def __getattr__(self, name: str) -> Any:
        if name == "release":
            raise AttributeError(name)
        return getattr(self._tagger, name)
