"""Video-to-music inference: visual inputs and text conditions of each window, over MusicGen's engine.

N frames or instants; … dimensions of a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.checkpoints import V2M, VisualInputConfig
from v2m.checkpoints.encoders import load_vision_encoder
from v2m.core import prompts
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import VisionEncoder
from v2m.core.timing import samples_to_seconds, segment_times
from v2m.core.types import Floats, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.musicgen_engine import MusicGenEngine
from v2m.generators.options import DecoderName, WindowOptions
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference.fast_linear import Precision
from v2m.models.visual_conditioner import VisualInputs
from v2m.pretrained.frame_times import long_term_frame_times, window_frame_times

BATCH_FRAMES = 256  # frames in memory at a time


class VisualFrontend:
    """The vision encoder on its device, and the choice of frames for it."""

    def __init__(self, encoder: VisionEncoder, config: VisualInputConfig) -> None:
        self._encoder, self.config = encoder, config

    @classmethod
    def load(cls, model: V2M, name: str, device: torch.device, *, fast_frames: bool = False) -> VisualFrontend:
        """Load the frontend of the model loaded as `name`, if it gives the tokens of its training.

        `fast_frames` decodes VidMuse's frames at reduced size.
        """
        conditioner, config = model.config.conditioner, model.visual_input
        if fast_frames and config is not None and config.aspect == "vidmuse":
            config = replace(config, aspect="squash")
        assert conditioner is not None, "this model has no visual conditioner"
        if config is None:
            raise DependencyError(
                f"{name!r} has no visual input settings (no section visual_input in its config.yaml): fetch it again"
            )
        if config.event_channels and config.event_channels != EVENT_CHANNELS:
            raise DependencyError(
                f"{name!r} was trained on the event channels {', '.join(config.event_channels)}, and this v2m measures "
                f"{', '.join(EVENT_CHANNELS)}: use the v2m that it was trained with"
            )
        component = model.component("vision_encoder")
        encoder = load_vision_encoder(
            component, device, name=component.name or name, pooling=config.pooling, aspect=config.aspect
        )
        sizes = [
            ("tokens a frame", encoder.num_tokens, conditioner.num_tokens),
            ("numbers a token", encoder.dim, conditioner.vision_dim),
        ]
        if conditioner.kind != "vidmuse":
            sizes.append(("event channels", len(EVENT_CHANNELS), conditioner.num_event_channels))
        differing = [f"{actual} {name} instead of {expected}" for name, actual, expected in sizes if actual != expected]
        if differing:
            raise DependencyError(
                f"the vision encoder of {name!r} does not fit the model: it gives {', '.join(differing)}; give the one "
                "that the model was trained with"
            )
        return cls(encoder, config)

    def window_encoder(self, video: Video) -> Callable[[float, float], VisualInputs]:
        """Make `encode(start, end)` for windows of `video` in seconds; long-term frames are encoded once."""
        long_term_times = long_term_frame_times(video, self.config.aspect, self.config.num_long_term_frames)
        long_term = self._encode_frames(video, long_term_times)

        def encode(start: float, end: float) -> VisualInputs:
            duration = min(end, video.duration) - start  # the last codec frame may reach beyond the video
            times = window_frame_times(video, self.config.aspect, start, duration, self.config.fps)
            events, event_times = torch.zeros(0, 0), np.zeros(0)
            if self.config.event_channels:
                features = visual_event_features(video.visual_features(), start, duration, self.config.event_rate)
                events, event_times = torch.from_numpy(features), start + segment_times(duration, len(features))
            return VisualInputs(
                *_timed_input(self._encode_frames(video, times), times - start),
                *_timed_input(long_term, long_term_times - start),
                *_timed_input(events, event_times - start),
            )

        return encode

    def black_frame(self) -> VisualInputs:
        """Inputs of one black frame, VidMuse's negative; VidMuse adds no times, so one frame equals many."""
        black = _timed_input(self._encoder.encode(np.zeros((1, 32, 32, 3), np.uint8)), np.zeros(1))
        return VisualInputs(*black, *black, *_timed_input(torch.zeros(0, 0), np.zeros(0)))

    def _encode_frames(self, video: Video, times: Floats) -> Tensor:
        """(N, tokens, dimension) of the frames at `times`."""
        width = self._encoder.decode_width(video.width, video.height)
        batches = [times[start : start + BATCH_FRAMES] for start in range(0, len(times), BATCH_FRAMES)]
        frames = (video.frames(batch.tolist(), width, self._encoder.convert) for batch in batches)
        return torch.cat([self._encoder.encode(images) for images in frames])


def _timed_input(values: Tensor, times: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Values (1, N, …), their times in seconds (1, N), and a full mask (1, N)."""
    times_row = torch.tensor(times, dtype=torch.float32, device=values.device)[None]
    return values[None], times_row, torch.ones_like(times_row, dtype=torch.bool)


class VideoMusicEngine:
    """A model with its visual frontend, over a `MusicGenEngine` of the same model; all are on `device`."""

    def __init__(
        self, model: V2M, music_engine: MusicGenEngine, frontend: VisualFrontend, device: torch.device
    ) -> None:
        self.model, self._music_engine, self._frontend, self._device = model, music_engine, frontend, device
        self._null_video: Condition | None = None

    @classmethod
    def load(
        cls,
        name: str,
        device: torch.device,
        precision: Precision | None,
        *,
        decoder: DecoderName = "encodec",
        fast_frames: bool = False,
    ) -> VideoMusicEngine:
        """Load a checkpoint of VidMuse's layout or ours; UsageError without a visual conditioner."""
        model = V2M.from_pretrained(name)
        if model.config.conditioner is None:
            message = f"{name!r} has no visual conditioner: give it to the recipe musicgen, or give a VidMuse here"
            raise UsageError(message)
        frontend = VisualFrontend.load(model, name, device, fast_frames=fast_frames)
        music_engine = MusicGenEngine.from_model(model, name, device, precision, decoder=decoder)
        return cls(model, music_engine, frontend, device)

    @torch.inference_mode()
    def generate(
        self,
        video: Video,
        tags: Tags,
        options: WindowOptions,
        *,
        seed: int,
        stems: bool = False,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of exactly `video.duration`; arguments as of `MusicGenEngine.generate`."""
        model, rate = self._music_engine.place_model(), self._music_engine.codec.spec.frame_rate
        prompt, negative_prompt = "", ""
        if model.config.uses_text:
            prompt, negative_prompt = prompts.build_prompt(tags), prompts.build_negative_prompt(tags)
        text, negative = None, None
        if prompt or negative_prompt:
            text, negative = self._music_engine.encode_text(prompt, negative_prompt)
        use_video = options.sampling.video_cfg_scale != 0 or text is None
        encode_window = self._frontend.window_encoder(video) if use_video else None
        if use_video and not model.config.has_null_tokens and negative is None:
            negative = self._get_null_video()

        def branches(start: int, end: int) -> Sequence[CFGBranch]:
            condition = None
            if encode_window is not None:
                inputs = encode_window(samples_to_seconds(start, rate), samples_to_seconds(end, rate))
                condition = model.encode_video(inputs.to(self._device))
            return model.cfg_branches(options.sampling, text=text, video=condition, negative=negative)

        soundtrack = self._music_engine.generate_from_branches(
            video.duration, branches, options, seed=seed, tags=tags, stems=stems, progress=progress
        )
        metadata = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "visual_input": self._frontend.config.to_dict() if use_video else None,
        }
        return replace(soundtrack, metadata=metadata | dict(soundtrack.metadata))

    def _get_null_video(self) -> Condition:
        if self._null_video is None:
            self._null_video = self.model.encode_video(self._frontend.black_frame().to(self._device))
        return self._null_video
