"""DiffusersGenerator on tiny pipelines in the published format: length, seeds, conditions, inpainting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fixtures.tiny import pipelines as tiny
from tests.pretrained.hub_server import serving
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import MusicGenerator
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Audio, Controls, InpaintRequest, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.diffusers import DiffusersGenerator, pipeline_info
from v2m.generators.diffusers.loading import load_pipeline
from v2m.generators.diffusers.pipeline_info import FILES, PipelineInfo
from v2m.media import audio as sound_files
from v2m.media import video as opening
from v2m.pipeline.score import score_video

ROOT = Path(__file__).parents[3]
KINDS = ("ace_step", "stable_audio", "stable_audio_3")
TAGS = Tags(genres="ambient", instruments="piano", moods="calm", tempo=72.4, key="bb minor")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    for kind in KINDS:
        getattr(tiny, f"write_{kind}")(folder / kind)
    return folder


@pytest.fixture(scope="module")
def clip(media: Path) -> Video:
    return replace(opening.open(media / "cuts.mp4"), duration=1.37)


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "tune.wav"
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(48000) / 48000) * (np.arange(48000) % 12000 < 6000)
    sound_files.save(Audio(np.stack([wave, wave]).astype(np.float32), 48000), path)
    return path


def make_generator(models: Path, kind: str, **settings: Any) -> DiffusersGenerator:
    chosen: dict[str, Any] = {"steps": 2, "device": "cpu", "keep_loaded": True} | settings
    return DiffusersGenerator(model=str(models / kind), **chosen)


def differ(one: Soundtrack, other: Soundtrack) -> float:
    return float(np.abs(one.audio.samples - other.audio.samples).max())


@pytest.mark.parametrize("kind", KINDS)
def test_output_matches_video_length_and_batches_match_single_generation(models: Path, clip: Video, kind: str) -> None:
    generator = make_generator(models, kind)
    assert isinstance(generator, MusicGenerator)
    fractions: list[float] = []

    def note(fraction: float) -> None:
        fractions.append(fraction)

    first, second = generator.generate_batch(clip, TAGS, [3, 4], progress=note)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    for take in (first, second):
        assert take.audio.samples.shape == (2, seconds_to_samples(1.37, take.audio.sample_rate))
        assert take.audio.samples.std() > 1e-3
        assert np.abs(take.audio.samples).max() <= 1.0
    assert differ(first, second) > 1e-2
    assert differ(generator.generate(clip, TAGS, 4), second) < 1e-3  # rounding in a batch
    alone = generator.generate(clip, TAGS, 4)
    assert differ(alone, generator.generate(clip, TAGS, 4)) == 0.0
    assert differ(alone, generator.generate(clip, replace(TAGS, genres=("rock",)), 4)) > 1e-5
    assert generator.weights[0].license in {"mit", "stable-audio-community", "stabilityai-community"}


def test_ace_step_gets_tempo_key_and_meter_and_lyrics_only_with_vocals(models: Path, clip: Video) -> None:
    generator = make_generator(models, "ace_step", meter=3)
    facts = generator.generate(clip, TAGS, 0).metadata
    expected = {"bpm": 72, "keyscale": "Bb minor", "timesignature": "3", "lyrics": "[Instrumental]"}
    assert expected.items() <= facts.items()
    assert facts["prompt"] == "calm ambient music with piano"
    assert (facts["num_inference_steps"], facts["guidance_scale"], facts["windows"]) == (2, 1.0, [[0.0, 1.37]])
    sung = pipeline_info.ace_step_arguments(replace(TAGS, vocals=True, lyrics=" [verse]\nla "), 3, "en")
    assert (sung["lyrics"], sung["vocal_language"]) == ("[verse]\nla", "en")
    assert pipeline_info.ace_step_arguments(replace(TAGS, lyrics="la"), 3, "en")["vocal_language"] == "unknown"
    one, other = (generator.generate(clip, replace(TAGS, vocals=True, lyrics=text), 0) for text in ("la", "oh no"))
    assert differ(one, other) > 1e-5
    assert differ(generator.generate(clip, replace(TAGS, tempo=140), 0), generator.generate(clip, TAGS, 0)) > 1e-5


@pytest.mark.parametrize(
    ("key", "name"),
    [("f# min", "F# minor"), ("Bb", "Bb major"), ("Cb dur", "Cb major"), ("A-flat minor", "Ab minor"), (None, None)],
)
def test_key_name_is_normalized_for_ace_step(key: str | None, name: str | None) -> None:
    assert pipeline_info.key_name(Tags(key=key)) == name


@pytest.mark.parametrize("kind", KINDS)
def test_higher_melody_strength_follows_the_melody_more_closely(
    models: Path, clip: Video, tune: Path, kind: str
) -> None:
    """Closeness is measured by how little the seed matters."""
    controls = Controls(melody=tune)

    def spread(strength: float) -> float:
        generator = make_generator(models, kind, melody_strength=strength)
        one, other = generator.generate_batch(clip, TAGS, [1, 2], controls=controls)
        return differ(one, other)

    plain = make_generator(models, kind).generate(clip, TAGS, 1)
    followed = make_generator(models, kind, melody_strength=1.0).generate(clip, TAGS, 1, controls=controls)
    assert differ(plain, followed) > 1e-3
    assert followed.metadata["melody"] == str(tune)
    if kind != "ace_step":  # whose noise is the same: only what it hears of the tune changes
        assert spread(1.0) < 0.7 * spread(0.0)
    else:
        weaker = make_generator(models, kind, melody_strength=0.2).generate(clip, TAGS, 1, controls=controls)
        assert differ(weaker, followed) > 1e-4


def test_negative_prompt_affects_stable_audio_only_with_cfg(models: Path, clip: Video) -> None:
    negative = replace(TAGS, negative=("drums",))
    led = make_generator(models, "stable_audio", cfg_scale=6.0)
    assert differ(led.generate(clip, TAGS, 0), led.generate(clip, negative, 0)) > 1e-3
    assert led.generate(clip, negative, 0).metadata["negative_prompt"] == "drums"
    free = make_generator(models, "stable_audio", cfg_scale=1.0)
    assert differ(free.generate(clip, TAGS, 0), free.generate(clip, negative, 0)) == 0.0


def test_reference_audio_changes_the_ace_step_output(models: Path, clip: Video, tune: Path) -> None:
    generator = make_generator(models, "ace_step")
    plain, styled = (generator.generate(clip, TAGS, 0, controls=item) for item in (None, Controls(reference=(tune,))))
    assert differ(plain, styled) > 1e-4
    assert styled.metadata["reference"] == [str(tune)]


def generate_inpainted(
    generator: DiffusersGenerator, clip: Video, before: Audio, folder: Path, seed: int
) -> Soundtrack:
    """Inpaint the seconds 0.4 to 0.9."""
    sound_files.save(before, folder / "before.wav")
    request = InpaintRequest(0.4, 0.9, folder / "before.wav")
    return generator.generate(clip, TAGS, seed, controls=Controls(inpaint=request))


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting_changes_only_the_requested_range(models: Path, clip: Video, tmp_path: Path, kind: str) -> None:
    generator = make_generator(models, kind)
    before = generator.generate(clip, TAGS, 1).audio
    after = generate_inpainted(generator, clip, before, tmp_path, 5)
    rate = before.sample_rate
    low, high = seconds_to_samples(0.4, rate), seconds_to_samples(0.9, rate)
    old, new = before.samples, after.audio.samples
    assert after.audio.sample_rate == rate
    np.testing.assert_array_equal(old[:, :low], new[:, :low])
    np.testing.assert_array_equal(old[:, high:], new[:, high:])
    assert np.abs(old - new)[:, low:high].max() > 1e-3
    assert np.abs(np.diff(new, axis=1))[:, [low - 1, high - 1]].max() <= 2 * np.abs(np.diff(old, axis=1)).max()
    assert differ(after, generate_inpainted(generator, clip, before, tmp_path, 6)) > 1e-3
    assert after.metadata["inpainted"] == [0.4, 0.9]


def test_inpainting_keeps_the_sample_rate_and_channels_of_the_source(models: Path, clip: Video, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    before = Audio(0.2 * random.uniform(-1, 1, (1, seconds_to_samples(clip.duration, 22050))).astype(np.float32), 22050)
    after = generate_inpainted(make_generator(models, "stable_audio"), clip, before, tmp_path, 5).audio
    assert (after.sample_rate, after.samples.shape) == (22050, before.samples.shape)
    low, high = seconds_to_samples(0.4, 22050), seconds_to_samples(0.9, 22050)
    np.testing.assert_array_equal(before.samples[:, :low], after.samples[:, :low])
    np.testing.assert_array_equal(before.samples[:, high:], after.samples[:, high:])


def test_inpainting_range_above_the_maximum_is_rejected_in_prepare(models: Path, tmp_path: Path) -> None:
    generator = make_generator(models, "stable_audio")
    most = 0.75 * PipelineInfo.from_folder(models / "stable_audio").max_duration
    with pytest.raises(UsageError, match=f"give {most:g} s at most"):
        generator.prepare(TAGS, Controls(inpaint=InpaintRequest(0.0, most + 1, tmp_path)))


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting_depends_on_the_surrounding_audio(models: Path, clip: Video, tmp_path: Path, kind: str) -> None:
    generator = make_generator(models, kind)
    one, other = (score.audio for score in generator.generate_batch(clip, TAGS, [1, 2]))
    low, high = (seconds_to_samples(second, one.sample_rate) for second in (0.6, 0.8))
    outputs = [
        generate_inpainted(generator, clip, item, tmp_path, 5).audio.samples[:, low:high] for item in (one, other)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-6  # the same seed: without context, the bits would be equal


def test_stable_audio_inpainting_keeps_the_latents_outside_the_range(models: Path) -> None:
    from v2m.generators.diffusers.adapters import GenerationRequest, StableAudioAdapter

    pipeline = load_pipeline(models / "stable_audio", "StableAudioPipeline", torch.device("cpu"), low_memory=False)
    hop = pipeline.vae.hop_length
    kept = torch.randn(1, 2, 20 * hop, generator=torch.Generator().manual_seed(0)) * 0.1
    caught: list[torch.Tensor] = []
    pipeline.vae.decode = lambda z: caught.append(z) or type("D", (), {"sample": torch.zeros(1, 2, 20 * hop)})
    words = {"prompt": "music", "negative_prompt": None, "num_inference_steps": 3, "guidance_scale": 2.0}
    job = GenerationRequest(20 * hop, (1,), source=kept, inpaint_range=(5 * hop, 9 * hop))
    StableAudioAdapter(pipeline).generate(words, job, lambda fraction: None)
    silence = torch.zeros(1, 2, 108 * hop)
    known = pipeline.vae.encode(torch.cat([kept, silence], dim=-1)).latent_dist.mode()
    same = (caught[0] - known).abs().amax((0, 1)) < 1e-4
    assert same[:5].all()
    assert same[9:20].all()
    assert not same[5:9].any()


def test_long_video_is_generated_in_consecutive_windows(models: Path, clip: Video) -> None:
    generator = make_generator(models, "stable_audio", steps=1)
    long = replace(clip, duration=9.0)
    score = generator.generate(long, TAGS, 0)
    assert score.audio.samples.shape == (2, 9 * 44100)
    goes = score.metadata["windows"]
    assert len(goes) == 2
    assert goes[0][0] == 0.0
    assert goes[0][1] == goes[1][0]
    assert goes[1][1] == 9.0
    assert np.abs(score.audio.samples[:, -4410:]).max() > 1e-3
    steps = np.abs(np.diff(score.audio.samples, axis=1)).max(axis=0)
    seam = seconds_to_samples(goes[0][1], 44100)
    assert steps[seam - 5 : seam + 5].max() <= steps.max()


def test_melody_longer_than_one_window_is_rejected(tmp_path: Path, clip: Video, tune: Path) -> None:
    tiny.write_stable_audio_3(tmp_path / "short", max_duration=1.0)
    message = r"follows a melody for 1 s at most, and the video lasts (1.4|4.0) s: give `end=1`, or no `melody`"
    generator, controls = make_generator(tmp_path, "short"), Controls(melody=tune)
    with pytest.raises(UsageError, match=message):
        generator.generate(clip, TAGS, 0, controls=controls)
    with pytest.raises(UsageError, match=message):  # before the tagger is asked
        score_video(clip.path, tmp_path / "out.mp4", tagger=Untouched(), generator=generator, controls=controls)
    generator.validate_video(replace(clip, duration=1.0), controls)


class Untouched:
    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        raise AssertionError("the tagger was asked")


def test_unsupported_controls_are_rejected_before_loading(
    models: Path, tmp_path: Path, tune: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("stable_audio", "stable_audio_3"):
        with pytest.raises(UsageError, match="follows no style"):
            make_generator(models, kind).prepare(TAGS, Controls(reference=(tune,)))
    with pytest.raises(UsageError, match="one recording"):
        make_generator(models, "ace_step").prepare(TAGS, Controls(reference=(tune, tune)))
    tiny.write_ace_step(tmp_path / "deaf", covers=False)
    with pytest.raises(UsageError, match="lacks the audio_tokenizer"):
        make_generator(tmp_path, "deaf").prepare(TAGS, Controls(melody=tune))
    negative = replace(TAGS, negative=("drums",), vocals=True)
    for kind, words in (("ace_step", "no lyrics"), ("stable_audio_3", "plays instruments only")):
        caplog.clear()
        make_generator(models, kind).prepare(negative, Controls())
        assert "has no negative prompt" in caplog.text
        assert words in caplog.text
    with pytest.raises(UsageError, match=r"steps 0.*cfg_scale -1.*melody_strength 2"):
        DiffusersGenerator(steps=0, cfg_scale=-1, melody_strength=2)


def test_pipeline_info_is_read_from_the_config_files(models: Path, tmp_path: Path) -> None:
    ace, open_, three = (PipelineInfo.from_folder(models / kind) for kind in KINDS)
    assert (ace.sample_rate, ace.min_duration, ace.max_duration, ace.supports_cfg, ace.supports_melody) == (
        48000,
        10,
        600,
        False,
        True,
    )
    assert (open_.sample_rate, round(open_.max_duration, 3), open_.supports_cfg) == (44100, 5.944, True)
    assert (three.max_duration, three.supports_cfg) == (384.0, False)
    tiny.write_ace_step(tmp_path / "base", turbo=False, covers=False)
    base = PipelineInfo.from_folder(tmp_path / "base")
    assert (base.supports_cfg, base.supports_melody) == (True, False)


def test_low_memory_uses_bfloat16_and_release_unloads_the_model(models: Path, clip: Video) -> None:
    generator = make_generator(models, "stable_audio_3", low_memory=True, keep_loaded=False)
    assert generator.generate(clip, TAGS, 0).audio.samples.std() > 1e-3
    with generator._engine.model() as pipeline:
        assert {part.dtype for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder)} == {torch.bfloat16}
    generator.release()
    assert not generator._engine.loaded


def settings(part: str, **change: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / part
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return spoil


def cut(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def foreign(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    shutil.copytree(folder / "transformer", folder / "vae")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (settings("model_index.json", _class_name="FluxPipeline"), "holds a FluxPipeline"),
        (settings("model_index.json", vae=["os", "system"]), "names os.system as vae"),
        (settings("model_index.json", vae=["diffusers", "StableAudioPipeline"]), "names diffusers.StableAudioPipeline"),
        (settings("model_index.json", transformer=None), "names no transformer"),
        (settings("transformer/config.json", num_layers=3), "does not fit transformer"),
        (settings("transformer/config.json", sample_size="x"), "lack or misstate"),
        (settings("text_encoder/config.json", model_type="llama"), "model_type 'llama'"),
        (cut, "transformer"),
        (foreign, "lack or misstate 'sampling_rate'"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "is not JSON"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "lacks scheduler/scheduler_config.json"),
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("["), "tokenizer"),
    ],
)
def test_invalid_pipeline_folder_raises_a_one_line_error(
    models: Path, clip: Video, tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    spoil(Path(shutil.copytree(models / "stable_audio", tmp_path / "spoilt")))
    with pytest.raises(DependencyError, match=words) as caught:
        make_generator(tmp_path, "spoilt").generate(clip, TAGS, 0)
    assert "\n" not in str(caught.value)


def test_gated_repository_error_explains_how_to_accept_the_license(models: Path, media: Path, tmp_path: Path) -> None:
    folder = models / "stable_audio"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    clip = Path(shutil.copy(media / "cuts.mp4", tmp_path))
    words = ["-m", "v2m", str(clip), "--recipe", "stableaudio", "--generator.model", "owner/gated"]
    with serving(files) as hub:
        overrides = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "V2M_"))}
        process = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment | overrides, capture_output=True, text=True, check=False
        )
    assert process.returncode == 4
    [message] = [line for line in process.stderr.splitlines() if line.startswith("infer.py: ")]
    assert "its license must be accepted first" in message
    assert f"{hub.url}/owner/gated, then `hf auth login`" in message


def test_only_required_files_are_downloaded() -> None:
    from v2m.pretrained.weights import match_files

    needed = [f"{part}/diffusion_pytorch_model.safetensors" for part in ("vae", "transformer", "projection_model")]
    extra = ["model.ckpt", "model.safetensors", "transformer/diffusion_pytorch_model.fp16.safetensors", "vae/x.bin"]
    assert match_files([*needed, *extra, "model_index.json"], FILES) == [*needed, "model_index.json"]
