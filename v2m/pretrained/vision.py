"""Frozen vision encoders: CLIP, SigLIP or DINOv2 towers in transformers' published format.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021); Zhai et al., "Sigmoid
Loss for Language Image Pre-Training" (2023); Oquab et al., "DINOv2" (2023).

F frames, H height, W width of a frame, P tokens per frame, D dimension of a token, S side of the square input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad
from transformers import CLIPVisionModel, Dinov2Model, PreTrainedModel, SiglipVisionModel

from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Pixels
from v2m.pretrained.safe_load import check_finite, read_json, read_state_dict
from v2m.pretrained.transformers_loader import CPU, load_model

FILES = ("config.json", "model.safetensors|pytorch_model.bin", "preprocessor_config.json|")
Pooling = Literal["all", "grid"]
Aspect = Literal["squash", "crop", "pad", "vidmuse"]
POOL_GRID = 2  # rows and columns of means
BATCH_SIZE = 32  # frames at a time
# parts of a dual encoder besides the tower
NON_VISION_PREFIXES = ("text_model.", "text_projection.", "visual_projection.", "logit_")


@dataclass(frozen=True)
class _ModelFamily:
    """Model family. `image_size`: S, for files that name none. `has_class_token`: token 0 is the frame's."""

    model: type[PreTrainedModel]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    has_class_token: bool
    image_size: int | None = None


_CLIP = _ModelFamily(
    CLIPVisionModel, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), has_class_token=True
)
_SIGLIP = _ModelFamily(SiglipVisionModel, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), has_class_token=False)
_DINO = _ModelFamily(Dinov2Model, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), has_class_token=True, image_size=224)
MODEL_FAMILIES = {  # by model_type
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": _DINO,
}


class FrozenVisionEncoder:
    """Vision tower on a device, in float32. `name` identifies model and tokens: NAME:POOLING.

    Pooling "all" gives the class token, where the model has one, and all patch tokens of the last layer (of CLIP:
    before its final norm, as VidMuse reads it). Pooling "grid" gives 5 tokens: the class token, or the mean of all
    patches where there is none, and the means over a grid of 2×2, row by row.
    """

    def __init__(
        self, model: Any, family: _ModelFamily, image_size: int, *, name: str, pooling: Pooling, aspect: Aspect
    ) -> None:
        self.name, self.image_size = f"{name}:{pooling}", image_size
        self.aspect: str = aspect
        self.convert = self._squash if aspect == "vidmuse" else None
        self.dim: int = model.config.hidden_size
        self._model, self._family, self._pooling = model, family, pooling
        self._mean = torch.tensor(family.mean, device=model.device)[:, None, None]
        self._std = torch.tensor(family.std, device=model.device)[:, None, None]
        self._patches = image_size // model.config.patch_size  # along one side
        self.num_tokens = 1 + POOL_GRID**2 if pooling == "grid" else self._patches**2 + family.has_class_token

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        *,
        name: str,
        pooling: Pooling = "grid",
        aspect: Aspect = "squash",
        config: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> FrozenVisionEncoder:
        """Load a folder in transformers' layout: the tower alone, or the dual encoder that it is part of.

        Mean, deviation and size are those of preprocessor_config.json. `name` is that in datasets and checkpoints. A
        frame becomes a square by `aspect`: "squash"; "crop" its middle; "pad" with the mean color; or "vidmuse",
        squashed from full size by a bilinear filter to whole gray levels. UsageError for another `pooling` or `aspect`.
        """
        if pooling not in get_args(Pooling) or aspect not in get_args(Aspect):
            choices = f"{' or '.join(get_args(Pooling))}, and {', '.join(get_args(Aspect))}"
            raise UsageError(f"pooling {pooling!r} and aspect {aspect!r} must be of {choices}")
        config = read_json(folder / "config.json") if config is None else config
        model_type = config.get("model_type")
        family = MODEL_FAMILIES.get(str(model_type))
        if family is None:
            raise DependencyError(
                f"{str(folder)!r} is no vision model that is known: its config.json says model_type {model_type!r}, "
                f"not one of {', '.join(MODEL_FAMILIES)}"
            )
        state = _vision_state(read_state_dict(folder) if state is None else state)
        check_finite(state, f"the vision model ({str(folder)!r})")
        kind = family.model.config_class.model_type  # type: ignore[union-attr]
        config = config if model_type == kind else {**config.get("vision_config", {}), "model_type": kind}
        model: Any = load_model(family.model, folder, CPU, description="vision model", config=config, state=state)
        family = _read_preprocessor(folder, family)
        size = family.image_size or model.config.image_size
        patch = model.config.patch_size
        if size % patch or size < POOL_GRID * patch:
            message = f"{str(folder)!r}: pictures of {size} pixels are no whole number of patches of {patch}"
            raise DependencyError(message)
        return cls(
            model.to(device=device, dtype=torch.float32), family, size, name=name, pooling=pooling, aspect=aspect
        )

    def decode_width(self, width: int, height: int) -> int:
        """Width at which to decode frames of `width` × `height`: no larger than is needed, never enlarged."""
        if self.aspect == "vidmuse":
            return width
        side = max(width, height) if self.aspect == "pad" else min(width, height)
        return min(width, max(1, round(width * self.image_size / side)))

    @torch.inference_mode()
    def encode(self, frames: Pixels | Tensor) -> Tensor:
        """(F, H, W, 3) uint8, upright RGB → tokens (F, P, D) float32 on the model's device."""
        assert frames.ndim == 4, f"expected (F, H, W, 3), not {tuple(frames.shape)}"
        assert frames.shape[-1] == 3, f"expected (F, H, W, 3), not {tuple(frames.shape)}"
        batches: list[Any] = [frames[start : start + BATCH_SIZE] for start in range(0, len(frames), BATCH_SIZE)]
        tokens = [self._encode_batch(torch.as_tensor(batch)) for batch in batches]
        return torch.cat(tokens) if tokens else torch.zeros(0, self.num_tokens, self.dim, device=self._model.device)

    def _encode_batch(self, frames: Tensor) -> Tensor:
        x = (self._to_square(frames.to(self._model.device)) - self._mean) / self._std  # (F, 3, S, S)
        tokens = self._model(pixel_values=x).last_hidden_state
        if self._pooling == "all":
            return tokens
        patches = tokens[:, int(self._family.has_class_token) :]
        frame = tokens[:, :1] if self._family.has_class_token else patches.mean(dim=1, keepdim=True)
        grid = adaptive_avg_pool2d(patches.mT.unflatten(2, (self._patches, self._patches)), POOL_GRID)  # (F, D, 2, 2)
        return torch.cat([frame, grid.flatten(2).mT], dim=1)

    def _squash(self, frames: Pixels) -> Pixels:
        """(F, H, W, 3) → (F, S, S, 3), as torchvision's `Resize` does."""
        x = torch.tensor(frames).permute(0, 3, 1, 2).float()
        x = interpolate(x, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return x.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def _to_square(self, frames: Tensor) -> Tensor:
        """(F, H, W, 3) uint8 → (F, 3, S, S), 0–1."""
        x = frames.permute(0, 3, 1, 2).float() / 255
        (height, width), side = x.shape[2:], self.image_size
        if self.aspect == "vidmuse" and (height, width) != (side, side):
            x = torch.from_numpy(self._squash(frames.cpu().numpy())).permute(0, 3, 1, 2).to(x) / 255
        if self.aspect in {"squash", "vidmuse"}:
            return _resize(x, side, side)
        scale = side / (min(height, width) if self.aspect == "crop" else max(height, width))
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        x = _resize(x, height, width)
        if self.aspect == "crop":
            top, left = (height - side) // 2, (width - side) // 2
            return x[..., top : top + side, left : left + side]
        top, left = (side - height) // 2, (side - width) // 2
        return pad(x - self._mean, (left, side - width - left, top, side - height - top)) + self._mean


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resize with antialiasing, as in PIL."""
    if x.shape[2:] == (height, width):
        return x
    return interpolate(x, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def _vision_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower's weights, without text model, projections, and position ids of older libraries."""
    return {
        name.removeprefix("vision_model."): value
        for name, value in state.items()
        if not name.startswith(NON_VISION_PREFIXES) and not name.endswith("embeddings.position_ids")
    }


def _read_preprocessor(folder: Path, family: _ModelFamily) -> _ModelFamily:
    """The family with mean, deviation and, where it has one, S of preprocessor_config.json, if any."""
    path, size = folder / "preprocessor_config.json", family.image_size or 0
    if not path.is_file():
        return family
    config = read_json(path)
    mean, std = config.get("image_mean", family.mean), config.get("image_std", family.std)
    crop = config.get("crop_size") or config.get("size") or size
    crop = next(iter(crop.values()), size) if isinstance(crop, dict) else crop
    try:
        (r, g, b), (dr, dg, db), size = map(float, mean), map(float, std), int(crop)
    except (TypeError, ValueError) as error:
        raise DependencyError(f"{str(path)!r} holds no mean, deviation and size of pictures ({error})") from error
    if not (min(dr, dg, db) > 0 and size > 0):
        raise DependencyError(f"{str(path)!r}: deviation {[dr, dg, db]} and size {size} must be above 0")
    return replace(family, mean=(r, g, b), std=(dr, dg, db), image_size=size if family.image_size else None)
