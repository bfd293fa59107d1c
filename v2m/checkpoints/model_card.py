"""Model card of a checkpoint (README.md): license, origin, sizes, and usage."""

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
    """Return Markdown with the front matter of the hub.

    Args:
        config: Sizes of the model.
        parameters: Number of its parameters.
        components: Frozen models that go with it.
        sample_rate: Of the music, in Hz.
        license: Of the weights, as their authors name it.
        origin: What they were made from.
    """
    lm = config.lm
    front = {"license": license, "library_name": "v2m", "tags": ["v2m", "music", "video-to-music"]}
    front_matter = yaml.safe_dump({key: value for key, value in front.items() if value}, sort_keys=False).strip()
    inputs = {"text": config.text_dim, "a melody": config.num_chroma, "video": config.conditioner}
    conditions = [name for name, value in inputs.items() if value is not None]
    stereo = ", left and right in turn" if lm.channels == 2 else ""
    rows = {
        "parameters": f"{parameters:,}",
        "layers, dimension, heads": f"{lm.num_layers}, {lm.dim}, {lm.num_heads}",
        "codebooks": f"{lm.num_codebooks} of {lm.codebook_size} codes{stereo}",
        "sample rate": f"{sample_rate} Hz",
        "trained on": f"{config.segment_duration:g} s at a time",
        "conditioned on": " and ".join(conditions) or "nothing",
        **{
            kind.replace("_", " "): component.name or f"in the folder `{kind}`"
            for kind, component in components.items()
        },
    }
    recipe = "vidmuse --generator.model" if config.conditioner is not None else "musicgen --generator.model"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{front_matter}
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
