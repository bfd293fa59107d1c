"""MAGNeT inference: a text prompt, codec tokens in windows of the model's own length, and their audio.

K codebooks, T frames.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from v2m.checkpoints import Component
from v2m.checkpoints.components import COMPRESSION_FILE, REQUIRED_FILES
from v2m.checkpoints.load import STATE_FILE, named_components
from v2m.core import prompts
from v2m.core.errors import DependencyError, UsageError
from v2m.core.progress import ignore_progress, sub_progress
from v2m.core.protocols import Codec
from v2m.core.timing import codec_frames, mean_rate, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.musicgen_engine import PROGRESS_SHARES, decode_codes
from v2m.generators.options import MagnetSampling, WindowOptions
from v2m.models.inference.windows import Window, plan_windows, window_seed
from v2m.pretrained import audiocraft, weights
from v2m.pretrained.audiocraft_package import read_package
from v2m.pretrained.codecs.encodec import InterleavedStereoCodec, load_encodec
from v2m.pretrained.text import T5TextEncoder

LICENSE = "cc-by-nc-4.0"  # of the weights of facebook/magnet-*
STRIDE_RATIO = 0.6  # of the window, which is MusicGen's


class MagnetEngine:
    """The loaded language model with its codec; generates one piece after the other."""

    def __init__(self, lm: audiocraft.Magnet, codec: Codec, device: torch.device, infos: Sequence[WeightsInfo]) -> None:
        self.weights = tuple(infos)
        self._lm, self._codec, self._device = lm, codec, device

    @classmethod
    def load(cls, name: str, device: torch.device) -> MagnetEngine:
        """Load a checkpoint of audiocraft's layout; UsageError where it is none of MAGNeT's for music."""
        audiocraft.import_audiocraft()  # before gigabytes are fetched
        license = LICENSE if name.startswith("facebook/") else None
        infos = [weights.fetch(name, (STATE_FILE, COMPRESSION_FILE), license=license)]
        cfg, state = read_package(infos[0].folder / STATE_FILE)
        if cfg.get("lm_model") != "transformer_lm_magnet":
            kind = cfg.get("lm_model")
            raise UsageError(f"{name!r} is no MAGNeT (its lm_model is {kind!r}): try it with the recipe musicgen")
        if cfg.get("solver") == "audio_magnet":
            raise UsageError(f"{name!r} makes sound effects, no music: give facebook/magnet-small-30secs, for example")
        components = named_components(infos[0].folder, cfg)

        for kind in ("text_encoder", "codec"):
            if kind not in components:
                raise DependencyError(f"{name!r} names no {kind.replace('_', ' ')}")
            if components[kind].name is not None:
                infos.append(weights.fetch(str(components[kind].name), REQUIRED_FILES[kind]))
                components[kind] = Component(folder=infos[-1].folder)
        text, part = components["text_encoder"].folder, components["codec"]
        assert text is not None, "a component that was asked for has been fetched"
        assert part.folder is not None, "a component that was asked for has been fetched"
        codec: Codec = load_encodec(part.folder, device, config=part.config, state=part.state)
        if (cfg.get("interleave_stereo_codebooks") or {}).get("use"):
            codec = InterleavedStereoCodec(codec)
        lm = audiocraft.Magnet.build(
            cfg, state, T5TextEncoder.load(text, device),
            frame_rate=codec.spec.frame_rate, device=device, name=name,
        )  # fmt: skip
        written, read = (f"{part.num_codebooks} × {part.codebook_size}" for part in (lm, codec.spec))
        if written != read:
            raise DependencyError(f"{name!r} writes codebooks × entries {written}, and its codec reads {read}")
        return cls(lm, codec, device, infos)

    def validate(self, sampling: MagnetSampling, stride: float | None) -> None:
        """Raise UsageError where sampling or stride do not suit the model."""
        steps, codebooks = sampling.decoding_steps, self._lm.num_codebooks
        if len(steps) != codebooks:
            raise UsageError(f"decoding_steps {list(steps)} must be {codebooks} numbers, one for each codebook")
        WindowOptions(SamplingConfig(), self._window, self._window / 2 if stride is None else stride).check_overlap()

    @property
    def _window(self) -> float:
        return samples_to_seconds(self._lm.num_frames, self._codec.spec.frame_rate)

    @torch.inference_mode()
    def generate(
        self,
        video: Video,
        tags: Tags,
        sampling: MagnetSampling,
        stride: float | None,
        *,
        seed: int,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of exactly `video.duration`, (C, N) at the codec's rate; `seed` decides it."""
        progress = progress or ignore_progress
        progress(0.0)
        prompt, negative_prompt = prompts.build_prompt(tags), prompts.build_negative_prompt(tags)
        prompts.warn_if_empty(prompt)
        spec = self._codec.spec
        frames, plan = codec_frames(video.duration, spec.frame_rate), self._plan(video.duration, stride)
        seeds = [seed, *(window_seed(seed, index) for index in range(1, len(plan)))]
        start_time = time.perf_counter()
        codes = torch.zeros(1, self._lm.num_codebooks, 0, dtype=torch.long, device=self._device)
        for index, (window, seed_of_window) in enumerate(zip(plan, seeds, strict=True)):
            low, high = ((index + n) / len(plan) for n in (0, 1))
            report = sub_progress(sub_progress(progress, *PROGRESS_SHARES), low, high)
            known = codes[..., window.start :] if window.prompt else None
            new = self._lm.generate(
                prompt, negative_prompt, known, seed=seed_of_window,
                callback=lambda step, steps, report=report: report(step / steps), **_parameters(sampling),
            )  # fmt: skip
            codes = torch.cat([codes, new[..., window.prompt :]], dim=-1)
        elapsed = time.perf_counter() - start_time
        wave = decode_codes(self._codec, codes[..., :frames], seconds_to_samples(video.duration, spec.sample_rate))
        progress(1.0)
        metadata = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "windows": [[samples_to_seconds(at, spec.frame_rate) for at in (start, end)] for start, end, _ in plan],
            "window_seeds": seeds,
            "device": self._device.type,
            "frames_per_second": round(mean_rate(codes.shape[-1], elapsed), 2),
        }
        return Soundtrack(audio=Audio(wave, spec.sample_rate), metadata=metadata)

    def _plan(self, duration: float, stride: float | None) -> list[Window]:
        """Return windows of the model's own length that cover `duration`; shorter music is the start of one."""
        rate, window, span = self._codec.spec.frame_rate, self._lm.num_frames, self._lm.span_len
        step = codec_frames(STRIDE_RATIO * self._window if stride is None else stride, rate)
        step -= step % span if step > span else 0  # prompts of whole spans
        return plan_windows(max(codec_frames(duration, rate), window), window, step)


def _parameters(sampling: MagnetSampling) -> dict[str, Any]:
    """Return the sampling under the names of audiocraft's `generate`, which knows a top p of 0 as none."""
    top_p = 0.0 if sampling.top_p == 1 else sampling.top_p
    guidance = {"max_cfg_coef": sampling.cfg_scale, "min_cfg_coef": sampling.min_cfg_scale}
    draw = {"use_sampling": sampling.temperature > 0, "temp": sampling.temperature, "top_k": sampling.top_k}
    steps = {"decoding_steps": list(sampling.decoding_steps), "span_arrangement": sampling.span_arrangement}
    return {**draw, "top_p": top_p, **guidance, **steps}
