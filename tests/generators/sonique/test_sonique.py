"""SONIQUE on a tiny model: prompts, melody, inpainting, and batches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.fixtures.tiny import sonique as tiny
from v2m.core import compat
from v2m.core.errors import UsageError
from v2m.core.types import Audio, Controls, InpaintRequest, Soundtrack, Tags, Video
from v2m.generators.inpaint import FADE_S, InpaintSource
from v2m.generators.options import DiffusionPrecision, DiffusionSampling
from v2m.generators.sonique import Sonique, checkpoint
from v2m.generators.sonique.engine import default_precision
from v2m.generators.sonique.windowed_sampling import CFGCondition, cfg_velocity, inpainting_denoiser, velocity_denoiser
from v2m.mappings.stable_audio import unwrap_state
from v2m.media import audio as sound_files
from v2m.models.conditioning import Condition

TAGS = Tags(instruments=["guitar", "drums"], genres=["rock"], tempo=140)
FEW = DiffusionSampling(steps=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("sonique") / "model")


@pytest.fixture(scope="module")
def generator(folder: Path) -> Sonique:
    return Sonique(model=str(folder), sampling=FEW, overlap=0.3, device="cpu", precision="fp32", keep_loaded=True)


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    times = np.arange(tiny.SAMPLE_RATE * 3 // 2) / tiny.SAMPLE_RATE
    sound_files.save(
        Audio(0.4 * np.sin(2 * np.pi * 330 * times)[None].astype(np.float32), tiny.SAMPLE_RATE), tmp_path / "tune.wav"
    )
    return tmp_path / "tune.wav"


def make_video(seconds: float) -> Video:
    return Video(Path("clip.mp4"), "mp4", "h264", 16, 16, 0, 25.0, seconds, np.zeros(1), 0.0, ())


def wave(score: Soundtrack) -> np.ndarray:
    return score.audio.samples


@pytest.mark.parametrize("seconds", [0.3, 1.024, 2.0, 2.60013])
def test_output_matches_video_length_to_the_sample(generator: Sonique, seconds: float) -> None:
    score = generator.generate(make_video(seconds), TAGS, 3)
    assert score.audio.samples.shape == (1, int(np.floor(seconds * tiny.SAMPLE_RATE + 0.5)))
    assert 1e-3 < wave(score).std() < 1
    windows = score.metadata["windows"]
    assert windows[-1][1] >= seconds - 1e-3
    assert all(later[0] < earlier[1] for earlier, later in pairwise(windows))


def test_same_seed_is_deterministic_and_seeds_differ(generator: Sonique, folder: Path) -> None:
    first = wave(generator.generate(make_video(1.5), TAGS, 3))
    fresh = Sonique(model=str(folder), sampling=FEW, overlap=0.3, device="cpu", precision="fp32", low_memory=True)
    np.testing.assert_array_equal(wave(fresh.generate(make_video(1.5), TAGS, 3)), first)
    assert not np.allclose(wave(generator.generate(make_video(1.5), TAGS, 4)), first, atol=1e-2)


@pytest.mark.parametrize("name", ["", "ckpts/exported.safetensors", "ckpts/stable_ep=220.ckpt"])
def test_exported_safetensors_give_the_same_music(generator: Sonique, folder: Path, tmp_path: Path, name: str) -> None:
    """As the trainer exports the model, in another folder and beside the trained one."""
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    trained = copy / tiny.CHECKPOINT
    state = unwrap_state(torch.load(trained, weights_only=True)["state_dict"])
    save_file({key: value.contiguous() for key, value in state.items()}, copy / "ckpts/exported.safetensors")
    if not name:
        trained.unlink()
    fresh = Sonique(model=str(copy / name), sampling=FEW, overlap=0.3, device="cpu", precision="fp32")
    music = wave(fresh.generate(make_video(1.0), TAGS, 3))
    np.testing.assert_array_equal(music, wave(generator.generate(make_video(1.0), TAGS, 3)))


def test_batched_generation_matches_single_generation(generator: Sonique) -> None:
    together = generator.generate_batch(make_video(1.5), TAGS, [3, 4, 5, 6, 7])
    assert [score.metadata["batch_size"] for score in together] == [4] * 5
    assert np.abs(wave(together[0]) - wave(together[1])).mean() > 0.05
    for seed, score in zip(range(3, 8), together, strict=True):  # guidance of a random model makes much of rounding
        np.testing.assert_allclose(wave(score), wave(generator.generate(make_video(1.5), TAGS, seed)), atol=5e-3)


def test_prompt_and_negative_prompt_affect_output_and_metadata(generator: Sonique) -> None:
    plain = generator.generate(make_video(1.0), TAGS, 3)
    other = generator.generate(make_video(1.0), replace(TAGS, genres=["classical"]), 3)
    against = generator.generate(make_video(1.0), replace(TAGS, negative=["Noise"]), 3)
    assert (plain.metadata["prompt"], plain.metadata["negative_prompt"]) == ("guitar, drums, rock, 140 bpm", "")
    assert (against.metadata["prompt"], against.metadata["negative_prompt"]) == (
        "guitar, drums, rock, 140 bpm",
        "noise",
    )
    assert np.abs(wave(plain) - wave(other)).max() > 1e-3
    assert np.abs(wave(plain) - wave(against)).max() > 1e-3


def test_timing_conditioning_affects_output(generator: Sonique) -> None:
    short, long = (wave(generator.generate(make_video(seconds), TAGS, 3)) for seconds in (1.0, 1.01))  # 1 s, then 2
    assert np.abs(short[:, :3500] - long[:, :3500]).max() > 1e-3


def test_higher_melody_strength_follows_the_melody_more_closely(folder: Path, tune: Path) -> None:
    distances: list[float] = []
    for strength in (0.3, 0.8, 1.0):
        sonique = Sonique(
            model=str(folder), sampling=FEW, overlap=0.3, device="cpu", melody_strength=strength, keep_loaded=True
        )
        score = sonique.generate(make_video(2.5), TAGS, 3, controls=Controls(melody=tune))
        distances.append(float((wave(score) - _through_the_autoencoder(folder, tune, 10_000)).std()))
        assert score.metadata["sigmas"][0] == pytest.approx(FEW.init_sigma(strength))
        assert score.metadata["melody"] == str(tune)
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def _through_the_autoencoder(folder: Path, tune: Path, samples: int) -> np.ndarray:
    """The tune, again and again, as nothing but the autoencoder gives it back."""
    sound = sound_files.load(tune, tiny.SAMPLE_RATE, 3.0).samples[0]
    looped = np.take(sound, np.arange(-(-samples // tiny.HOP) * tiny.HOP) % len(sound))
    both = checkpoint.load_components(str(folder), "none").autoencoder
    return both.decode(both.encode(torch.from_numpy(looped)[None, None]))[0, :, :samples].numpy()


@pytest.mark.parametrize("form", [(tiny.SAMPLE_RATE, 1), (6000, 2)])
@pytest.mark.parametrize("part", [(0.9, 1.4), (0.0, 0.4), (2.1, 2.5), (0.35, 2.3)])
def test_inpainting_keeps_samples_outside_the_range_bit_identical(
    generator: Sonique, tmp_path: Path, form: tuple[int, int], part: tuple[float, float]
) -> None:
    (rate, sides), (begin, end) = form, part
    earlier = (0.2 * np.random.default_rng(1).standard_normal((sides, int(2.5 * rate)))).astype(np.float32)
    sound_files.save(Audio(earlier, rate), tmp_path / "earlier.wav")
    request = InpaintRequest(begin, end, tmp_path / "earlier.wav")
    scores = [generator.generate(make_video(2.5), TAGS, seed, controls=Controls(inpaint=request)) for seed in (3, 4)]
    low, high = round(begin * rate), round(end * rate)
    for score in scores:
        assert (score.audio.sample_rate, score.audio.samples.shape) == (rate, earlier.shape)
        np.testing.assert_array_equal(wave(score)[:, :low], earlier[:, :low])
        np.testing.assert_array_equal(wave(score)[:, high:], earlier[:, high:])
        assert score.metadata["inpainted"] == [begin, end]
    assert np.abs(wave(scores[0]) - earlier)[:, low:high].mean() > 0.02
    assert np.abs(wave(scores[0]) - wave(scores[1]))[:, low:high].mean() > 1e-3


def test_inpainted_range_is_crossfaded_within_its_bounds() -> None:
    rate = 1000
    kept = InpaintSource(Audio(np.zeros((2, 1000), np.float32), rate), 0.3, 0.7)
    share = kept.crossfade_in(Audio(np.ones((1, 1000), np.float32), rate)).samples
    fade = round(FADE_S * rate)
    assert (share[:, :300] == 0).all()
    assert (share[:, 700:] == 0).all()
    assert (share[:, 300 + fade : 700 - fade] == 1).all()
    assert np.abs(np.diff(share[0])).max() <= 1.01 / fade


def test_inpainting_denoiser_renoises_known_frames_and_returns_them_unchanged() -> None:
    inputs: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        inputs.append(x)
        return x - sigma

    kept, noise, x = (torch.randn(2, 3, 8) for _ in range(3))
    keep = torch.arange(8) < 3
    result = inpainting_denoiser(denoise, kept, keep, noise)(x, 2.0)
    torch.testing.assert_close(inputs[0][..., :3], (kept + 2 * noise)[..., :3])
    torch.testing.assert_close(inputs[0][..., 3:], x[..., 3:])
    torch.testing.assert_close(result[..., :3], kept[..., :3])
    torch.testing.assert_close(result[..., 3:], x[..., 3:] - 2)


@torch.inference_mode()
def test_cfg_velocity_matches_reference_formula_with_rescaling() -> None:
    unet = tiny.make_unet()
    positive, negative = (Condition(torch.randn(1, 79, tiny.WIDTH), torch.arange(79)[None] < 40) for _ in range(2))
    x, time = torch.randn(2, tiny.LATENT, 32), torch.tensor([0.5, 0.5])
    mask = positive.mask.expand(2, -1)
    cond = unet(x, time, positive.tokens.expand(2, -1, -1), mask)
    uncond = unet(x, time, unet.null_tokens[None].expand(2, -1, -1), mask)
    torch.testing.assert_close(cfg_velocity(unet, CFGCondition(positive, None, 1.0, 0.4))(x, time), cond)
    expected = uncond + 4 * (cond - uncond)
    torch.testing.assert_close(
        cfg_velocity(unet, CFGCondition(positive, None, 4.0, 0.0))(x, time), expected, rtol=1e-4, atol=1e-4
    )
    level = cfg_velocity(unet, CFGCondition(positive, None, 4.0, 1.0))(x, time).std(dim=1)
    torch.testing.assert_close(level, cond.std(dim=1), rtol=1e-4, atol=1e-4)
    tokens = torch.where(negative.mask[..., None], negative.tokens, unet.null_tokens)
    uncond = unet(x, time, tokens.expand(2, -1, -1), mask)
    expected = uncond + 4 * (cond - uncond)
    torch.testing.assert_close(
        cfg_velocity(unet, CFGCondition(positive, negative, 4.0, 0.0))(x, time), expected, rtol=1e-4, atol=1e-4
    )


def test_velocity_denoiser_returns_the_clean_latent() -> None:
    """v = α·ε − σ'·x₀ of a cosine schedule gives back the x₀ that it was made of."""
    clean, noise, sigma = torch.randn(2, 3, 8), torch.randn(2, 3, 8), 2.5
    angle = np.arctan(sigma)

    def velocity(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(x, np.cos(angle) * clean + np.sin(angle) * noise)
        torch.testing.assert_close(time, torch.full((1,), float(angle * 2 / np.pi)))
        return np.cos(angle) * noise - np.sin(angle) * clean

    torch.testing.assert_close(velocity_denoiser(velocity)(clean + sigma * noise, sigma), clean)


def test_too_large_overlap_is_rejected(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"overlap 0.4 s is more than a third of the 1.02 s"):
        Sonique(model=str(folder), overlap=0.4, device="cpu").prepare(TAGS, Controls())
    with pytest.raises(UsageError, match=r"overlap 0 s must be .*; melody_strength 2 must .*; batch_size 0 must"):
        Sonique(overlap=0, melody_strength=2, batch_size=0)


@pytest.mark.parametrize(("has_bf16", "name"), [(True, "bf16"), (False, "fp32")])
def test_default_precision_is_bf16_where_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, name: str
) -> None:
    monkeypatch.setattr(compat, "cpu_has_avx512_bf16", lambda: has_bf16)
    assert default_precision(torch.device("cpu")) == name


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_each_precision_makes_music(folder: Path, precision: DiffusionPrecision) -> None:
    if precision == "int8" and (compat.onednn_int8_ops() is None or not compat.onednn_supports(torch.bfloat16)):
        pytest.skip("this CPU has no instructions for it")
    sonique = Sonique(model=str(folder), sampling=FEW, overlap=0.3, device="cpu", precision=precision)
    soundtrack = sonique.generate(make_video(0.5), TAGS, 3)
    assert soundtrack.metadata["precision"] == precision
    assert 1e-3 < wave(soundtrack).std() < 1


def test_int8_is_refused_where_nothing_multiplies_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "onednn_int8_ops", lambda: None)
    with pytest.raises(UsageError, match="precision int8 needs a CPU with VNNI"):
        Sonique(model=str(folder), overlap=0.3, device="cpu", precision="int8").prepare(TAGS, Controls())
