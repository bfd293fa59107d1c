"""MultiBand Diffusion decodes what audiocraft's own decodes, from the same files and with the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.fixtures.tiny import encodec, multiband
from v2m.core.errors import DependencyError
from v2m.pretrained import audiocraft
from v2m.pretrained.audiocraft import MultiBandCodec
from v2m.pretrained.codecs.encodec import InterleavedStereoCodec, load_encodec

CPU = torch.device("cpu")
HOP = 640
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # audiocraft's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    multiband.write(folder / "multiband-diffusion")
    (folder / "codec").mkdir()
    encodec.write_audiocraft_codec(folder / "codec" / "compression_state_dict.bin")
    return folder


@pytest.fixture
def codec(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MultiBandCodec:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(folder))
    return MultiBandCodec.load(load_encodec(folder / "codec", CPU), CPU)


@pytest.fixture
def reference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """audiocraft's own; its loader needs an unrestricted torch.load."""
    from audiocraft.models import loaders
    from audiocraft.models.multibanddiffusion import DiffusionProcess, MultiBandDiffusion
    from audiocraft.modules.diffusion_schedule import NoiseSchedule

    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: load(*args, **kwargs, weights_only=False))
    parts = loaders.load_diffusion_models(str(folder / "multiband-diffusion"), filename=multiband.FILE)
    processes = [
        DiffusionProcess(model, NoiseSchedule(**cfg.schedule, sample_processor=processor, device="cpu"))
        for model, processor, cfg in zip(*parts, strict=True)
    ]
    return MultiBandDiffusion(processes, loaders.load_compression_model(str(folder / "codec")))


def codes(batch: int, frames: int, codebooks: int = 4) -> Tensor:
    return torch.randint(64, (batch, codebooks, frames), generator=torch.Generator().manual_seed(5))


def theirs(reference: Any, tokens: Tensor, seed: int = 0) -> Tensor:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return reference.tokens_to_wav(tokens).detach()


def test_decoded_audio_equals_audiocraft(codec: MultiBandCodec, reference: Any) -> None:
    before = torch.get_rng_state()
    actual = codec.decode(codes(1, 60))
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers are left alone"
    assert actual.shape == (1, 1, 60 * HOP)
    assert_close(actual, theirs(reference, codes(1, 60)), atol=1e-5, rtol=1e-4)
    assert torch.equal(codec.decode(codes(1, 60)), actual)
    assert not torch.allclose(actual, reference.codec_model.decode(codes(1, 60)), atol=1e-2)


def test_both_sides_of_stereo_are_decoded_as_in_the_demo_of_audiocraft(codec: MultiBandCodec, reference: Any) -> None:
    """Left and right are two rows of a batch."""
    interleaved = codes(1, 40, codebooks=8)
    expected = theirs(reference, torch.cat([interleaved[:, 0::2], interleaved[:, 1::2]]))
    assert_close(InterleavedStereoCodec(codec).decode(interleaved), expected.transpose(0, 1), atol=1e-5, rtol=1e-4)


def test_long_music_is_decoded_in_chunks_that_crossfade(
    codec: MultiBandCodec, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of 40 frames over 90: 0–40, 35–75, and 50–90, of which 70–90 are used."""
    monkeypatch.setattr(audiocraft, "CHUNK_FRAMES", 40)
    monkeypatch.setattr(audiocraft, "OVERLAP_FRAMES", 5)
    tokens = codes(1, 90)
    actual = codec.decode(tokens)
    assert actual.shape == (1, 1, 90 * HOP)
    for seed, (start, low, high) in enumerate([(0, 0, 35), (35, 40, 70), (50, 75, 90)]):
        chunk = theirs(reference, tokens[..., start : start + 40], seed)
        expected = chunk[..., (low - start) * HOP : (high - start) * HOP]
        assert_close(actual[..., low * HOP : high * HOP], expected, atol=1e-5, rtol=1e-4)
    mean = actual[..., 35 * HOP : 40 * HOP].square().mean()
    assert 0.1 < mean / actual[..., : 35 * HOP].square().mean() < 10


@pytest.mark.parametrize(
    ("sizes", "told"),
    [({"codec_dim": 8}, r"\[\(32000, 8\)\], and this codec has \(32000, 16\)"), ({"sample_rate": 24000}, "24000")],
)
def test_diffusion_of_another_codec_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], told: str
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    multiband.write(tmp_path / "multiband-diffusion", **sizes)
    with pytest.raises(DependencyError, match=told):
        MultiBandCodec.load(load_encodec(folder / "codec", CPU), CPU)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_the_file_is_refused_and_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    path = multiband.write(tmp_path / "multiband-diffusion") / multiband.FILE
    package = torch.load(path, weights_only=False)
    for value, told in ((Bomb(tmp_path / "ran"), "holds code and is refused"), ({}, "is no MultiBand Diffusion")):
        torch.save(package | {0: value}, path)
        with pytest.raises(DependencyError, match=told):
            MultiBandCodec.load(load_encodec(folder / "codec", CPU), CPU)
    assert not (tmp_path / "ran").exists()
