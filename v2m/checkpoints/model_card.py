"""The README.md of a checkpoint: its license, where it came from, its sizes, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from v2m.checkpoints.components import Component
from v2m.models.music_model import MusicConfig


def render_card(
    config: MusicConfig,
    parameters: int,
    components: Mapping[str, Component],
    *,
    sample_rate: int,
    license: str | None,
    origin: str | None,
) -> str:
    """Markdown, with the front matter that the hub reads.

    Args:
        config: Sizes of the model.
        parameters: How many numbers it has learned.
        parts: What goes with it.
        sample_rate: Of the music, in Hz.
        license: Of the weights, as their authors name it.
        origin: What they were made from.
    """
    lm = config.lm
    front = {"license": license, "library_name": "v2m", "tags": ["v2m", "music", "video-to-music"]}
    shown = yaml.safe_dump({key: value for key, value in front.items() if value}, sort_keys=False).strip()
    reads = [
        *["text"] * (config.text_dim is not None),
        *["a melody"] * (config.num_chroma is not None),
        *["video"] * (config.conditioner is not None),
    ]
    rows = {
        "parameters": f"{parameters:,}",
        "layers, width, heads": f"{lm.num_layers}, {lm.dim}, {lm.num_heads}",
        "codebooks, entries": f"{lm.num_codebooks} × {lm.codebook_size}{', left and right in turn' if lm.channels == 2 else ''}",  # noqa: E501
        "sample rate": f"{sample_rate} Hz",
        "trained on": f"{config.segment_duration:g} s at a time",
        "is told by": " and ".join(reads) or "nothing",
        **{kind.replace("_", " "): part.name or f"in the folder `{kind}`" for kind, part in components.items()},
    }
    recipe = "vidmuse --generator.model" if config.conditioner is not None else "musicgen --generator.model"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{shown}
---

# A music model for v2m

Origin: {origin or "not stated"}. License of the weights: {license or "not stated"}.

| | |
|---|---|
{table}

With FOLDER for this folder, or for its repository on the hub:

```
uv run infer.py clip.mp4 --recipe {recipe} FOLDER
uv run v2m convert FOLDER NEW_FOLDER --to transformers
```
"""
