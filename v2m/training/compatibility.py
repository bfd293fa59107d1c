"""Checks that a dataset's manifest matches the model config and its frozen components."""

from __future__ import annotations

from collections.abc import Mapping

from v2m.checkpoints import Component, VisualInputConfig
from v2m.core.errors import UsageError
from v2m.data.schema import Manifest
from v2m.models.music_model import MusicConfig


def check_manifest(config: MusicConfig, manifest: Manifest) -> None:
    """Raise UsageError, with all differences, where the shards do not suit a model of `config`."""
    lm, conditioner = config.lm, config.conditioner
    sizes = {
        "codebooks": (lm.num_codebooks, manifest.num_codebooks),
        "entries per codebook": (lm.codebook_size, manifest.codebook_size),
        "audio channels": (lm.channels, manifest.channels),
    }
    if config.text_dim is not None:
        sizes["dimensions per text token"] = config.text_dim, manifest.text_dim
    if conditioner is not None:
        sizes["tokens per frame"] = conditioner.num_tokens, manifest.num_tokens
        sizes["dimensions per vision token"] = conditioner.vision_dim, manifest.vision_dim
    if conditioner is not None and conditioner.kind != "vidmuse":
        sizes["event channels"] = conditioner.num_event_channels, len(manifest.event_channels)
        sizes["codec frames per second"] = conditioner.codec_frame_rate, manifest.codec_frame_rate
    differences = [
        f"{in_shards} {name} where the model has {in_model}"
        for name, (in_model, in_shards) in sizes.items()
        if in_model != in_shards
    ]
    if differences:
        encoders = f"vision {manifest.vision_encoder}, codec {manifest.codec}, text {manifest.text_encoder}"
        raise UsageError(
            f"the shards ({encoders}) are not for this model: {', '.join(differences)}; change the model's settings, "
            "or prepare with other encoders"
        )


def check_components(trained_with: Mapping[str, Component], prepared_with: Mapping[str, Component]) -> None:
    """Raise UsageError where a model was trained with other frozen components than the shards were prepared with.

    They are compared by their last names, so that a folder may stand for a repository. A component that is part of the
    checkpoint has no name and is not compared.
    """
    differences = [
        f"{kind.replace('_', ' ')} {prepared_with[kind].name!r}, the start with {component.name!r}"
        for kind, component in trained_with.items()
        if component.name is not None
        and kind in prepared_with
        and _base_name(component) != _base_name(prepared_with[kind])
    ]
    if differences:
        raise UsageError(f"the shards were made with the {', the '.join(differences)}: prepare with the start's")


def _base_name(component: Component) -> str:
    return (component.name or "").partition("@")[0].rstrip("/").rpartition("/")[2]


def manifest_components(manifest: Manifest) -> dict[str, Component]:
    """Return the frozen components that the shards were prepared with."""
    vision_encoder = manifest.vision_encoder.rpartition(":")[0] or manifest.vision_encoder
    names = {"vision_encoder": vision_encoder, "codec": manifest.codec, "text_encoder": manifest.text_encoder}
    return {kind: Component(name) for kind, name in names.items()}


def visual_input_config(manifest: Manifest) -> VisualInputConfig:
    """Return how the videos of the shards were turned into visual inputs."""
    return VisualInputConfig(
        pooling=manifest.vision_encoder.rpartition(":")[2],
        aspect=manifest.aspect,
        fps=manifest.video_frame_rate,
        num_long_term_frames=manifest.num_long_term_frames,
        event_rate=manifest.event_rate,
        event_channels=manifest.event_channels,
    )
