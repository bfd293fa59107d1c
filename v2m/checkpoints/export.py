"""Export of checkpoints to the layouts of transformers, audiocraft and VidMuse, for their libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from v2m.checkpoints import lightning_ckpt, save
from v2m.checkpoints.components import COMPRESSION_FILE, PREPROCESSOR_CONFIG, TOKENIZER_FILES
from v2m.checkpoints.load import STATE_FILE
from v2m.checkpoints.model import V2M
from v2m.core.atomic import atomic_directory
from v2m.core.errors import UsageError
from v2m.mappings import audiocraft, encodec, musicgen, vidmuse

AUDIOCRAFT_VERSION = "1.3.0"  # written into its layout
UNUSED_T5_PREFIXES = ("decoder.", "lm_head.")  # of a whole T5, whose encoder alone is used
T5_NAMESPACE = "google-t5/"  # of the T5s that audiocraft calls by their bare names


def convert_checkpoint(source: str, dest: Path, layout: str, dtype: str | None = None) -> str:
    """Convert the checkpoint `source`, or a training checkpoint (.ckpt), to a layout in the folder `dest`.

    `dtype` is that of the written weights, by its name in torch; None keeps it. Returns one line on what was written.
    Raises DependencyError where the source, or a frozen model that the layout includes, cannot be had, UsageError where
    there is no source, `dest` is not empty or the layout cannot represent the model.
    """
    is_training = source.endswith(".ckpt") and Path(source).is_file()
    model = lightning_ckpt.load_training_checkpoint(Path(source)) if is_training else V2M.from_pretrained(source)
    if dtype is not None:
        model.to(getattr(torch, dtype))
    if layout == "v2m":
        model.save_pretrained(dest)
    else:
        _check_layout(model, layout)
        write = _write_transformers if layout == "transformers" else _write_audiocraft

        def write_all(folder: Path) -> None:
            write(model, folder)
            _write_model_card(model, folder)

        atomic_directory(dest, write_all)
    count = sum(value.numel() for value in model.parameters())
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    lm = model.config.lm
    return (
        f"wrote {dest} in the layout of {layout}: {count:,} weights ({size / 1e6:.1f} MB), {lm.num_layers} layers of "
        f"width {lm.dim}, {lm.num_codebooks} codebooks; license: {model.license or 'not stated'}"
    )


def _check_layout(model: V2M, layout: str) -> None:
    """Raise UsageError where the layout cannot represent the model."""
    has_conditioner, name = model.config.conditioner is not None, model.origin or "the model"
    codec = model.components.get("codec")
    if codec is not None and codec.score_config() is not None:
        raise UsageError(f"{name} writes scores, which the layout {layout} has no codec for: write it as v2m")
    if has_conditioner and layout != "vidmuse":
        raise UsageError(f"{name} has a visual conditioner: write it in the layout v2m or vidmuse, not {layout}")
    if model.config.style is not None and layout == "transformers":
        raise UsageError(f"{name} has a style conditioner, which transformers' MusicGen lacks: write v2m or audiocraft")
    if not has_conditioner and layout == "vidmuse":
        raise UsageError(f"{name} has no visual conditioner: write it in another layout than {layout}")


def _write_transformers(model: V2M, folder: Path) -> None:
    lm, text, codec = model.config.lm, model.component("text_encoder"), model.component("codec")
    (text_config, text_state), (codec_config, codec_state) = text.load(), codec.load()
    text_state = {name: value for name, value in text_state.items() if not name.startswith(UNUSED_T5_PREFIXES)}
    config = musicgen.config_from_v2m(model.config.to_dict(), text_encoder=text_config, audio_encoder=codec_config)
    state = musicgen.merge_state(musicgen.from_v2m(model.state_dict()), text_state, codec_state)
    save.write_json(folder / "config.json", config)
    save.write_json(folder / "generation_config.json", musicgen.generation_config(lm.special_token_id))
    preprocessor = musicgen.preprocessor_config(lm.channels, model.sample_rate, model.config.num_chroma)
    save.write_json(folder / PREPROCESSOR_CONFIG, preprocessor)
    save.write_weights(folder / save.WEIGHTS_FILE, state)
    save.copy_files(text, folder, TOKENIZER_FILES)


def _write_audiocraft(model: V2M, folder: Path) -> None:
    """Write audiocraft's pair of files, which is VidMuse's layout, too."""
    config, frozen = model.config.to_dict(), _frozen_settings(model)
    if model.config.conditioner is None:
        settings, state = audiocraft.config_from_v2m(config, **frozen), audiocraft.from_v2m(model.state_dict())
    else:
        _, clip = model.component("vision_encoder").load()
        settings, state = vidmuse.config_from_v2m(config, **frozen), vidmuse.from_v2m(model.state_dict(), clip)
    _save_package(folder / STATE_FILE, settings, state)
    _write_compression(model, folder / COMPRESSION_FILE)


def _frozen_settings(model: V2M) -> dict[str, Any]:
    """Return settings of the frozen models: the T5 by name; for another encoder, a T5 of the same size."""
    component = model.components.get("text_encoder")
    known = {512: "t5-small", 1024: "t5-large"}.get(model.config.text_dim or 0, "t5-base")
    name = known if component is None or component.name is None else component.name.removeprefix(T5_NAMESPACE)
    return {"sample_rate": model.sample_rate, "text_encoder": name}


def _write_compression(model: V2M, path: Path) -> None:
    component = model.components.get("codec")
    if component is not None and component.name is not None:
        torch.save({"pretrained": component.name, "exported": True, "version": AUDIOCRAFT_VERSION}, path)
        return
    config, state = model.component("codec").load()
    _save_package(path, encodec.config_from_transformers(config), encodec.from_transformers(state))


def _save_package(path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    plain = {name: value.detach().clone() for name, value in state.items()}
    text = yaml.safe_dump(dict(settings), sort_keys=False)
    torch.save({"best_state": plain, "xp.cfg": text, "version": AUDIOCRAFT_VERSION, "exported": True}, path)


def _write_model_card(model: V2M, folder: Path) -> None:
    """Write the model card, with the license that every copy has to state."""
    front = f"license: {model.license}\n" if model.license else ""
    text = f"---\n{front}tags:\n- musicgen\n---\n\nConverted by v2m from {model.origin or 'a checkpoint'}.\n"
    (folder / save.CARD_FILE).write_text(text, encoding="utf-8")
