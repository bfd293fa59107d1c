"""MusicGen inference: text, melody and style conditions, codec tokens in windows, and their audio.

C channels, K codebooks, T frames, N samples, L text tokens, D dimension of the language model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from v2m.checkpoints import V2M
from v2m.checkpoints.codec import load_codec
from v2m.checkpoints.encoders import load_text_encoder
from v2m.core import prompts
from v2m.core.audio_ops import loop_samples, peak_excess
from v2m.core.errors import DependencyError, UsageError
from v2m.core.progress import ignore_progress, sub_progress
from v2m.core.protocols import Codec, TextEncoder
from v2m.core.timing import codec_frames, mean_rate, samples_to_seconds, seconds_to_samples
from v2m.core.types import Audio, ProgressFn, Soundtrack, Tags, Video
from v2m.generators.options import DecoderName, WindowOptions
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference import windows
from v2m.models.inference.decoder import Decoder, default_precision
from v2m.models.inference.fast_linear import Precision
from v2m.models.lora import merged_weights
from v2m.models.style_conditioner import StyleConditioner
from v2m.pretrained.codecs.base import EnCodec, InterleavedStereoCodec
from v2m.pretrained.codecs.score import ScoreCodec

if TYPE_CHECKING:  # they import transformers, which takes seconds and few models need
    from v2m.generators.style_encoder import StyleEncoder
    from v2m.pretrained.chroma import Chroma

PROGRESS_SHARES = (0.02, 0.95)  # share of the work at which decoding of the LM begins and ends


class MusicGenEngine:
    """The loaded model with its frozen components; generates one piece after the other.

    The model is on the CPU; its language model moves into the decoder when the first piece is generated. With
    `keep_model` it is on `device`, and stays as it is. The codec of a stereo model is one of both channels.
    """

    def __init__(
        self,
        model: V2M,
        text_encoder: TextEncoder | None,
        codec: Codec,
        chroma: Chroma | None,
        *,
        device: torch.device,
        precision: Precision | None,
        keep_model: bool = False,
    ) -> None:
        self.model, self._text_encoder, self.codec, self._chroma = model, text_encoder, codec, chroma
        self._device, self._keep_model = device, keep_model
        self._precision: Precision = precision or default_precision(model.lm, device)
        self._decoder: Decoder | None = None
        self._style_conditioner: StyleConditioner | None = None
        self._style_encoder: StyleEncoder | None = None

    @classmethod
    def load(
        cls, name: str, device: torch.device, precision: Precision | None, decoder: DecoderName = "encodec"
    ) -> MusicGenEngine:
        """Load a checkpoint of any layout; UsageError where it cannot generate from text alone."""
        model = V2M.from_pretrained(name)
        if model.config.conditioner is not None and not model.config.has_null_tokens:
            raise UsageError(f"{name!r} needs video, which this generator does not give it: give a MusicGen")
        if model.config.text_dim is None:
            raise UsageError(f"{name!r} has no text encoder: give a MusicGen")
        engine = cls.from_model(model, name, device, precision, decoder=decoder)
        engine._style_conditioner, model.style = model.style, None  # it stays in float32 where the rest is rounded
        return engine

    @classmethod
    def from_model(
        cls,
        model: V2M,
        name: str,
        device: torch.device,
        precision: Precision | None,
        *,
        keep_model: bool = False,
        with_text: bool = True,
        decoder: DecoderName = "encodec",
    ) -> MusicGenEngine:
        """Build the engine of a loaded model; without `with_text` for `generate_from_branches` alone."""
        text_encoder = _load_text_encoder(model, name, device) if with_text and model.config.uses_text else None
        component = model.component("codec")
        codec = load_codec(component, device)
        if decoder == "multiband":
            if not isinstance(codec, EnCodec):
                raise UsageError(f"{name!r} writes scores, which a SoundFont plays: leave out `generator.decoder`")
            from v2m.pretrained.audiocraft import MultiBandCodec

            codec = MultiBandCodec.load(codec, device)
            model.weights = (*model.weights, codec.weights)
        codec = InterleavedStereoCodec(codec) if model.config.lm.channels == 2 else codec
        model.check_codec(codec.spec)
        chroma = None
        if model.config.num_chroma is not None:
            from v2m.pretrained.chroma import Chroma

            assert component.folder is not None, "a model that follows a melody has files"
            chroma = Chroma.load(component.folder)
        return cls(model, text_encoder, codec, chroma, device=device, precision=precision, keep_model=keep_model)

    def with_decoder(self, decoder: Decoder) -> MusicGenEngine:
        """A copy that uses `decoder`, one of the model's current weights; the model stays intact."""
        engine = copy(self)
        engine._decoder = decoder
        return engine

    @property
    def writes_scores(self) -> bool:
        """True where soundtracks have MIDI and stems."""
        return isinstance(self.codec, ScoreCodec)

    @property
    def supports_melody(self) -> bool:
        return self._chroma is not None

    @property
    def supports_style(self) -> bool:
        return self.model.config.style is not None

    def style_encoder(self) -> StyleEncoder:
        """Return the style encoder, loaded at the first call."""
        if self._style_encoder is None:
            from v2m.generators.style_encoder import StyleEncoder

            assert self._style_conditioner is not None, "this model has no style conditioner"
            self._style_encoder = StyleEncoder.load(self.model, self._style_conditioner, self._device)
        return self._style_encoder

    @torch.inference_mode()
    def generate(
        self,
        video: Video,
        tags: Tags,
        melody: Audio | None,
        options: WindowOptions,
        *,
        seed: int,
        style: Condition | None = None,
        use_text: bool = True,
        stems: bool = False,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of exactly `video.duration`, (C, N) at the codec's rate; `seed` decides it.

        The prompts are made from `tags`; without `use_text` only the negative one. A melody, at the codec's rate, is
        repeated to the video's length; a `style` is the same in all windows.
        """
        prompt, negative_prompt = prompts.build_prompt(tags) if use_text else "", prompts.build_negative_prompt(tags)
        if style is None:
            prompts.warn_if_empty(prompt)
        text, negative = self.encode_text(prompt, negative_prompt)
        if style is None and self.supports_style:
            style = self.model.null_style()

        def branches(start: int, end: int) -> Sequence[CFGBranch]:
            chroma = self._encode_melody(melody, start, end)
            return self.model.cfg_branches(options.sampling, text=text, melody=chroma, negative=negative, style=style)

        soundtrack = self.generate_from_branches(
            video.duration, branches, options, seed=seed, tags=tags, stems=stems, progress=progress
        )
        metadata = {"prompt": prompt, "negative_prompt": negative_prompt, **soundtrack.metadata}
        return replace(soundtrack, metadata=metadata)

    @torch.inference_mode()
    def generate_from_branches(
        self,
        duration: float,
        branches: Callable[[int, int], Sequence[CFGBranch]],
        options: WindowOptions,
        *,
        seed: int,
        tags: Tags | None = None,
        stems: bool = False,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Generate music of `duration`; `branches(start, end)` condition the codec frames in that range.

        A score is played by the instruments of `tags`; it has MIDI, and with `stems` its stems.
        """
        progress = progress or ignore_progress
        progress(0.0)
        decoder, rate = self._get_decoder(), self.codec.spec.frame_rate
        frames, window, stride = (codec_frames(span, rate) for span in (duration, options.window, options.stride))
        start_time = time.perf_counter()
        codes = windows.generate_long(
            decoder, frames, window=window, stride=stride, branches=branches, sampling=options.sampling,
            seeds=[seed], progress=sub_progress(progress, *PROGRESS_SHARES),
        )  # fmt: skip
        elapsed = time.perf_counter() - start_time
        if isinstance(self.codec, ScoreCodec):
            soundtrack = self.codec.render(codes[0].cpu().numpy(), duration, tags, seed, stems=stems)
        else:
            wave = decode_codes(self.codec, codes, seconds_to_samples(duration, self.codec.spec.sample_rate))
            soundtrack = Soundtrack(audio=Audio(wave, self.codec.spec.sample_rate))
        progress(1.0)
        plan = windows.plan_windows(frames, window, stride)
        return replace(
            soundtrack,
            metadata={
                **soundtrack.metadata,
                "windows": [[samples_to_seconds(start, rate), samples_to_seconds(end, rate)] for start, end, _ in plan],
                "window_seeds": [windows.window_seed(seed, index) for index in range(len(plan))],
                "precision": decoder.precision,
                "kernel": decoder.kernel,
                "device": self._device.type,
                "frames_per_second": round(mean_rate(frames, elapsed), 2),
            },
        )

    def place_model(self) -> V2M:
        """Return the model on the device (before this only mapped into memory), its LM in the decoder."""
        self._get_decoder()
        return self.model

    def _get_decoder(self) -> Decoder:
        if self._decoder is None:
            if not self._keep_model:
                keep_dtype = self._device.type == "cpu" or self._precision == "fp32"
                self.model.to(self._device, None if keep_dtype else torch.bfloat16)
            with merged_weights(self.model):
                self._decoder = Decoder(self.model.lm, precision=self._precision)
            if not self._keep_model:
                del self.model.lm  # the decoder has its weights, in the layout that is fastest to multiply
        return self._decoder

    @torch.inference_mode()
    def encode_text(self, prompt: str, negative_prompt: str) -> tuple[Condition | None, Condition | None]:
        """Encode prompt and negative prompt, (1, L, D) each or None.

        An empty prompt beside a negative one becomes a text without tokens; alone it is no condition at all.
        """
        assert self._text_encoder is not None, "this model reads no text"
        encoder, model = self._text_encoder, self.place_model()

        def encode(text: str) -> Condition:
            return model.project_text(encoder.encode([text]).to(self._device))

        positive = encode(prompt) if prompt or negative_prompt else None
        return positive, encode(negative_prompt) if negative_prompt else None

    def _encode_melody(self, melody: Audio | None, start: int, end: int) -> Condition | None:
        """Chroma condition of the melody at codec frames `start` to `end`; without a melody, the null one."""
        if self._chroma is None:
            return None
        if melody is None:
            return self.model.project_melody(self._chroma.null().to(self._device))
        rate = self.codec.spec.frame_rate
        first, last = (
            seconds_to_samples(samples_to_seconds(frame, rate), melody.sample_rate) for frame in (start, end)
        )
        section = Audio(loop_samples(melody.samples, first, last), melody.sample_rate)
        return self.model.project_melody(self._chroma.extract(section).to(self._device))


def decode_codes(codec: Codec, codes: torch.Tensor, num_samples: int, tags: Tags | None = None) -> NDArray[np.float32]:
    """Decode codes (1, K, T) to audio (C, `num_samples`), within ±1.

    `tags` choose the instruments of a score.
    """
    decoded = codec.decode(codes, tags) if isinstance(codec, ScoreCodec) else codec.decode(codes)
    wave = decoded[0, :, :num_samples].float().cpu().numpy()
    assert wave.shape[1] == num_samples, f"the codes are shorter than {num_samples} samples"
    return (wave / peak_excess(wave)).astype(np.float32)


def _load_text_encoder(model: V2M, name: str, device: torch.device) -> TextEncoder:
    encoder = load_text_encoder(model.component("text_encoder"), device)
    if encoder.dim != model.config.text_dim:
        raise DependencyError(
            f"the text encoder of {name!r} gives {encoder.dim} numbers a token, the model reads {model.config.text_dim}"
            ": give the one that it was trained with"
        )
    return encoder
