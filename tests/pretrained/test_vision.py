"""Vision encoders: parity with the published models, pooling, and errors of invalid files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from tests.fixtures.tiny import clip as tiny
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import VisionEncoder
from v2m.core.types import Pixels
from v2m.pretrained.safe_load import read_state_dict
from v2m.pretrained.vision import BATCH_SIZE, FrozenVisionEncoder

CPU = torch.device("cpu")
KINDS: tuple[tiny.Kind, ...] = ("clip", "tower", "siglip", "dinov2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vision")
    return {kind: tiny.write(root / kind, kind) for kind in KINDS}


def pictures(count: int, height: int = 32, width: int = 32) -> Pixels:
    """Smooth, so that how they are scaled hardly matters."""
    random = np.random.default_rng(count)
    small = random.integers(0, 256, (count, 3, 4, 3), np.uint8)
    images = [Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in small]
    return np.stack([np.asarray(image) for image in images])


def published(kind: tiny.Kind, pixels: Tensor) -> Tensor:
    """Reference: transformers' own model on (F, 3, S, S)."""
    model = tiny.make_model(kind)
    with torch.inference_mode():
        return getattr(model, "vision_model", model)(pixel_values=pixels).last_hidden_state


@pytest.mark.parametrize("kind", KINDS)
def test_all_tokens_match_the_reference_model(kind: tiny.Kind, folders: dict[str, Path]) -> None:
    vision = FrozenVisionEncoder.load(folders[kind], CPU, name="some/model", pooling="all")
    frames = pictures(3)
    means = {"siglip": (0.5, 0.5), "dinov2": (0.485, 0.229)}.get(kind, (0.48145466, 0.26862954))
    result = vision.encode(frames)
    pixels = (torch.as_tensor(frames).permute(0, 3, 1, 2) / 255 - vision._mean) / vision._std
    assert pixels[0, 0, 0, 0] == pytest.approx((frames[0, 0, 0, 0] / 255 - means[0]) / means[1])
    torch.testing.assert_close(result, published(kind, pixels), rtol=0, atol=1e-4)
    assert isinstance(vision, VisionEncoder)
    assert result.shape == (3, vision.num_tokens, vision.dim) == (3, 16 if kind == "siglip" else 17, tiny.DIM)
    assert vision.name == "some/model:all"


def test_cropped_frame_matches_the_clip_image_processor(folders: dict[str, Path]) -> None:
    vision = FrozenVisionEncoder.load(folders["clip"], CPU, name="m", pooling="all", aspect="crop")
    frames = pictures(2, 48, 90)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = torch.as_tensor(np.stack(processor([Image.fromarray(frame) for frame in frames])["pixel_values"]))
    result = (vision._to_square(torch.as_tensor(frames)) - vision._mean) / vision._std
    torch.testing.assert_close(result, expected, rtol=0, atol=0.03)  # it rounds to 8 bits between


def test_squash_and_pad_keep_the_full_frame(folders: dict[str, Path]) -> None:
    """A frame of twice the width whose left half is red, and whose right edge is blue."""
    frame = np.zeros((1, 32, 64, 3), np.uint8)
    frame[:, :, :32, 0] = frame[:, :, -8:, 2] = 255
    squashed, padded, cropped = (
        FrozenVisionEncoder.load(folders["clip"], CPU, name="m", aspect=aspect)._to_square(torch.as_tensor(frame))[0]
        for aspect in ("squash", "pad", "crop")
    )
    assert squashed[0, :, :15].min() > 0.9
    assert squashed[2, :, -3:].min() > 0.9
    assert padded[0, 9:23, :15].min() > 0.9
    assert padded[2, 9:23, -3:].min() > 0.9
    torch.testing.assert_close(padded[:, 0, 0], torch.tensor([0.48145466, 0.4578275, 0.40821073]))
    assert cropped[2].max() < 0.1
    assert cropped[0, :, :15].min() > 0.9


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_grid_pooling_gives_means_of_quadrants_in_order(kind: tiny.Kind, folders: dict[str, Path]) -> None:
    """Order: the class token (or the mean), then top left, top right, bottom left, bottom right."""
    every = FrozenVisionEncoder.load(folders[kind], CPU, name="m", pooling="all").encode(pictures(2))
    vision = FrozenVisionEncoder.load(folders[kind], CPU, name="m", pooling="grid")
    grid = vision.encode(pictures(2))
    assert grid.shape == (2, vision.num_tokens, vision.dim) == (2, 5, tiny.DIM)
    patches = every[:, -16:].reshape(2, 4, 4, tiny.DIM)  # rows, columns
    torch.testing.assert_close(grid[:, 0], every[:, 0] if kind == "clip" else every.mean(1))
    for place, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)], start=1):
        torch.testing.assert_close(grid[:, place], patches[:, row : row + 2, column : column + 2].mean((1, 2)))


def test_batched_frames_match_single_frames(folders: dict[str, Path]) -> None:
    vision = FrozenVisionEncoder.load(folders["clip"], CPU, name="m")
    frames = pictures(BATCH_SIZE + 3, 36, 64)
    alone = torch.cat([vision.encode(frame[None]) for frame in frames])
    torch.testing.assert_close(vision.encode(frames), alone, rtol=0, atol=1e-4)
    assert vision.encode(frames[:0]).shape == (0, 5, tiny.DIM)


def test_decode_width_is_the_smallest_sufficient_one(folders: dict[str, Path]) -> None:
    squash = FrozenVisionEncoder.load(folders["clip"], CPU, name="m")
    assert [squash.decode_width(*size) for size in ((640, 320), (320, 640), (20, 10))] == [64, 32, 20]
    padded = FrozenVisionEncoder.load(folders["clip"], CPU, name="m", aspect="pad")
    assert [padded.decode_width(*size) for size in ((640, 320), (320, 640))] == [32, 16]


def test_vision_tower_may_come_from_another_checkpoint(folders: dict[str, Path]) -> None:
    """VidMuse's checkpoint: no folder, and position ids as a buffer."""
    state = read_state_dict(folders["tower"]) | {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    config = json.loads((folders["tower"] / "config.json").read_text())
    given = FrozenVisionEncoder.load(Path("nowhere"), CPU, name="m", config=config, state=state)
    assert torch.equal(
        given.encode(pictures(1)), FrozenVisionEncoder.load(folders["tower"], CPU, name="m").encode(pictures(1))
    )


def test_preprocessing_follows_the_folder_config(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["dinov2"], tmp_path / "dino"))
    settings = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "crop_size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    vision = FrozenVisionEncoder.load(folder, CPU, name="m", pooling="all")
    assert (vision.image_size, vision.num_tokens) == (64, 65)  # with interpolated position embeddings
    assert vision._std.flatten().tolist() == pytest.approx([0.2] * 3)
    assert vision.encode(pictures(1)).shape == (1, 65, tiny.DIM)


def _changed(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def _spoiled(folder: Path) -> None:
    state = {name: value.clone() for name, value in read_state_dict(folder).items()}
    state["vision_model.pre_layrnorm.weight"][3] = torch.nan
    tiny.save(folder, state)


INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "another family": (lambda f: _changed(f / "config.json", model_type="bert"), "model_type 'bert', not one of clip,"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "no numbers": (_spoiled, "pre_layrnorm.weight"),
    "another width": (lambda f: _changed(f / "config.json", hidden_size=48), "instead of"),
    "a mean of nothing": (
        lambda f: _changed(f / "preprocessor_config.json", image_mean=[1]),
        "no mean, deviation and size",
    ),
    "no deviation": (lambda f: _changed(f / "preprocessor_config.json", image_std=[0, 0, 0]), "above 0"),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_files_are_reported_in_one_line(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    corrupt, message = INVALID[kind]
    copy = Path(shutil.copytree(folders["tower"], tmp_path / "clip"))
    corrupt(copy)
    with pytest.raises(DependencyError) as caught:
        FrozenVisionEncoder.load(copy, CPU, name="m")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_invalid_pooling_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="all or grid"):
        FrozenVisionEncoder.load(folders["clip"], CPU, name="m", pooling="mean")  # type: ignore[arg-type]
