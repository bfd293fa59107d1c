"""Whether shards are for a model: what they hold, and the frozen models that they were made with."""

from __future__ import annotations

from collections.abc import Mapping

from v2m.checkpoints import Component, VisualInputConfig
from v2m.core.errors import UsageError
from v2m.data.schema import Manifest
from v2m.models.music_model import MusicConfig


def check_manifest(config: MusicConfig, manifest: Manifest) -> None:
    """Raises UsageError where shards hold something else than a model of `config` reads and writes."""
    lm, seen = config.lm, config.conditioner
    wanted = {
        "codebooks": (lm.num_codebooks, manifest.codebooks),
        "entries a codebook": (lm.codebook_size, manifest.entries),
    }
    wanted["channels of codes"] = lm.channels, manifest.channels
    if config.text_dim is not None:
        wanted["numbers a token of text"] = config.text_dim, manifest.text_width
    if seen is not None:
        wanted["tokens a frame"] = seen.num_tokens, manifest.tokens
        wanted["numbers a token of pictures"] = seen.vision_dim, manifest.width
    if seen is not None and seen.kind != "vidmuse":
        wanted["things measured of the rhythm"] = seen.num_event_channels, len(manifest.rhythm)
        wanted["codec frames a second"] = seen.codec_frame_rate, manifest.code_rate
    differing = [f"{has} {what} where the model has {own}" for what, (own, has) in wanted.items() if own != has]
    if differing:
        raise UsageError(
            f"the shards (vision {manifest.vision}, codec {manifest.codec}, text {manifest.text}) are not for this "
            f"model: {', '.join(differing)}; change the model's settings, or prepare with other encoders"
        )


def check_components(learned: Mapping[str, Component], made: Mapping[str, Component]) -> None:
    """Raises UsageError where a model has learned from other frozen models than shards are `made` with, by their last
    names: so that a folder may stand for a repository. What a checkpoint carries has no name."""
    differing = [
        f"{kind.replace('_', ' ')} {made[kind].name!r}, the start with {part.name!r}"
        for kind, part in learned.items()
        if part.name is not None and kind in made and _base_name(part) != _base_name(made[kind])
    ]
    if differing:
        raise UsageError(f"the shards were made with the {', the '.join(differing)}: prepare with the start's")


def _base_name(part: Component) -> str:
    return (part.name or "").partition("@")[0].rstrip("/").rpartition("/")[2]


def manifest_components(manifest: Manifest) -> dict[str, Component]:
    """The frozen models that the shards were made with."""
    named = {"vision_encoder": manifest.vision.rpartition(":")[0] or manifest.vision, "codec": manifest.codec}
    return {kind: Component(name) for kind, name in {**named, "text_encoder": manifest.text}.items()}


def visual_input_config(manifest: Manifest) -> VisualInputConfig:
    """How the videos of the shards are seen."""
    return VisualInputConfig(
        pooling=manifest.vision.rpartition(":")[2],
        aspect=manifest.aspect,
        fps=manifest.frame_rate,
        num_long_term_frames=manifest.whole,
        event_rate=manifest.rhythm_rate,
        event_channels=manifest.rhythm,
    )
