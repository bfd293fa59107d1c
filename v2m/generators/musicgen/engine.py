"""A piece from begin to end: what the model is told, the codes it writes in windows, and the sound they stand for.

C channels, K codebooks, T frames, N samples, L text tokens, D width of the language model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from v2m.checkpoints import V2M
from v2m.core import prompts
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import Codec
from v2m.core.timing import codec_frames, mean_rate, sample_count, seconds_of
from v2m.core.types import Audio, ProgressFn, SamplingConfig, Soundtrack, Tags, Video, WeightsInfo
from v2m.models.conditioning import Condition
from v2m.models.inference import windows
from v2m.models.inference.decoder import Decoder, default_precision
from v2m.models.inference.fast_linear import Precision
from v2m.models.lora import merged_weights
from v2m.models.music_model import CFGBranch
from v2m.pretrained.chroma import Chroma
from v2m.pretrained.codecs import encodec
from v2m.pretrained.text.t5 import T5TextEncoder

PROGRESS_SHARES = (0.02, 0.95)  # of the work done when the codes are begun, and when they stand

logger = logging.getLogger(__name__)


class MusicGenEngine:
    """The model with its frozen parts, which plays one piece after the other.

    Args:
        model: What learns, on the CPU; its language model is taken over by the decoder when the first piece is played.
            With `keep` it is on `device`, and stays as it is.
        text: Encodes the words, for models that read any.
        codec: Of the codes that the model writes; of stereo models the one for both sides.
        chroma: Hears a melody, for models that follow one.
        device: Where the work is done.
        precision: Of the language model's weights; None is what suits the device.
        keep: Whether the model is still needed by others.
    """

    def __init__(
        self,
        model: V2M,
        text_encoder: T5TextEncoder | None,
        codec: Codec,
        chroma: Chroma | None,
        *,
        device: torch.device,
        precision: Precision | None,
        keep_model: bool = False,
    ) -> None:
        self._model, self._text_encoder, self._codec, self._chroma = model, text_encoder, codec, chroma
        self._device, self._keep_model = device, keep_model
        self._precision: Precision = precision or default_precision(device)
        self._decoder: Decoder | None = None

    @classmethod
    def load(cls, name: str, device: torch.device, precision: Precision | None) -> MusicGenEngine:
        """From a checkpoint of any layout, a folder or a repository of the hub.

        Raises:
            DependencyError: Weights are missing, broken, or do not belong together; says which.
            UsageError: The model is one that is not told by words alone.
        """
        model = V2M.from_pretrained(name)
        if model.config.conditioner is not None and not model.config.has_null_tokens:
            raise UsageError(f"{name!r} writes to what it sees, which this generator does not show it: give a MusicGen")
        if model.config.text_dim is None:
            raise UsageError(f"{name!r} reads no text: give a MusicGen")
        return cls.from_model(model, name, device, precision)

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
    ) -> MusicGenEngine:
        """Of a model that has been read, with the parts it names or carries. Without `words` it can only `perform`.

        Raises:
            DependencyError: As in `load`.
        """
        text = _load_text_encoder(model, name, device) if with_text and model.config.uses_text else None
        codes = model.component("codec")
        assert codes.folder is not None, "a part that was asked for has been fetched"
        codec: Codec = encodec.load_encodec(codes.folder, device, config=codes.config, state=codes.state)
        codec = encodec.InterleavedStereoCodec(codec) if model.config.lm.channels == 2 else codec
        model.check_codec(codec.spec)
        chroma = None if model.config.num_chroma is None else Chroma.load(codes.folder)
        return cls(model, text, codec, chroma, device=device, precision=precision, keep_model=keep_model)

    def with_decoder(self, decoder: Decoder) -> MusicGenEngine:
        """The same, that writes with a decoder of the model's weights as they are now and takes nothing over."""
        found = copy(self)
        found._decoder = decoder
        return found

    @property
    def weights(self) -> tuple[WeightsInfo, ...]:
        return self._model.weights

    @property
    def sample_rate(self) -> int:
        return self._codec.spec.sample_rate

    @property
    def supports_melody(self) -> bool:
        return self._chroma is not None

    @property
    def training_window(self) -> float:
        """Seconds of music that the model learned to write in one go."""
        return self._model.config.segment_duration

    @property
    def frame_rate(self) -> int:
        """Codec frames a second."""
        return self._codec.spec.frame_rate

    @torch.inference_mode()
    def generate(
        self,
        video: Video,
        tags: Tags,
        melody: Audio | None,
        *,
        sampling: SamplingConfig,
        window: float,
        stride: float,
        seed: int,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration`, (C, N) at the codec's rate.

        Args:
            video: What it is for.
            tags: What it should be.
            melody: A tune to follow, at the codec's rate; it begins anew where the video is longer.
            sampling: How codes are drawn.
            window, stride: Seconds.
            seed: The same gives the same piece.
            progress: Told how much is done.
        """
        line, unwanted = prompts.build_prompt(tags), prompts.build_negative_prompt(tags)
        if not line:
            logger.warning("no tag says what the music should be: it is written without a prompt; give --tags.genres")
        text, without = self.encode_text(line, unwanted)

        def branches(begin: int, end: int) -> Sequence[CFGBranch]:
            tune = self._encode_melody(melody, begin, end)
            return self._model.cfg_branches(sampling, text=text, melody=tune, negative=without)

        score = self.generate_from_branches(
            video.duration, branches, sampling=sampling, window=window, stride=stride, seed=seed, progress=progress
        )
        return replace(score, metadata={"prompt": line, "negative_prompt": unwanted, **score.metadata})

    @torch.inference_mode()
    def generate_from_branches(
        self,
        duration: float,
        branches: Callable[[int, int], Sequence[CFGBranch]],
        *,
        sampling: SamplingConfig,
        window: float,
        stride: float,
        seed: int,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `seconds`; `branches` are what the codec frames from one to another are conditioned on."""
        tell: Callable[[float], None] = progress or (lambda _: None)
        tell(0.0)
        decoder, rate = self._get_decoder(), self._codec.spec.frame_rate
        frames = codec_frames(duration, rate)
        long, far = (codec_frames(seconds, rate) for seconds in (window, stride))
        begun = time.perf_counter()
        codes = windows.generate_long(
            decoder, frames, window=long, stride=far, branches=branches, sampling=sampling, seeds=[seed],
            progress=_between(tell, *PROGRESS_SHARES),
        )  # fmt: skip
        took = time.perf_counter() - begun
        sound = self.decode(codes, sample_count(duration, self.sample_rate))
        tell(1.0)
        plan = windows.plan_windows(frames, long, far)
        return Soundtrack(
            audio=Audio(sound, self.sample_rate),
            metadata={
                "windows": [[seconds_of(begin, rate), seconds_of(end, rate)] for begin, end, _ in plan],
                "window_seeds": [windows.window_seed(seed, number) for number in range(len(plan))],
                "precision": decoder.precision,
                "device": self._device.type,
                "frames_per_second": round(mean_rate(frames, took), 2),
            },
        )

    def place_model(self) -> V2M:
        """The model where the work is done, its language model in the decoder. Before the first piece it is on the CPU,
        where it is only mapped into memory, unless others need it."""
        self._get_decoder()
        return self._model

    def _get_decoder(self) -> Decoder:
        if self._decoder is None:
            if not self._keep_model:
                on_cpu = self._device.type == "cpu" or self._precision == "fp32"
                self._model.to(self._device, None if on_cpu else torch.bfloat16)
            with merged_weights(self._model):  # with adapters that have learned beside its matrices
                self._decoder = Decoder(self._model.lm, precision=self._precision)
            if not self._keep_model:
                del self._model.lm  # its weights are in the decoder now, as they multiply fastest
        return self._decoder

    @torch.inference_mode()
    def encode_text(self, prompt: str, negative_prompt: str) -> tuple[Condition | None, Condition | None]:
        """(1, L, D) of what the music should be and of what it is to be led away from.

        An empty line beside unwanted words is a text without tokens, to be led towards; alone it is no text at all.
        """
        assert self._text_encoder is not None, "this model reads no text"
        encoder, model = self._text_encoder, self.place_model()
        wanted, barred = prompt or (None if not negative_prompt else ""), negative_prompt or None
        text, without = (
            None if words is None else model.project_text(encoder.encode([words]).to(self._device))
            for words in (wanted, barred)
        )
        return text, without

    def _encode_melody(self, melody: Audio | None, begin: int, end: int) -> Condition | None:
        """What of the melody stands at those frames; of none, what models that follow one were trained to hear."""
        if self._chroma is None:
            return None
        if melody is None:
            return self._model.project_melody(self._chroma.null().to(self._device))
        rate = self._codec.spec.frame_rate
        low, high = (sample_count(seconds_of(frame, rate), melody.sample_rate) for frame in (begin, end))
        places = np.arange(low, high) % len(melody)
        heard = Audio(np.take(melody.samples, places, axis=1), melody.sample_rate)
        return self._model.project_melody(self._chroma.extract(heard).to(self._device))

    def decode(self, codes: torch.Tensor, num_samples: int) -> NDArray[np.float32]:
        """What codes (1, K, T) stand for: (C, `samples`), within ±1."""
        wave = self._codec.decode(codes)[0, :, :num_samples].float().cpu().numpy()
        assert wave.shape[1] == num_samples, f"the codes are shorter than {num_samples} samples"
        peak = float(np.abs(wave).max(initial=0.0))
        if peak > 1.0:
            logger.info("the music peaked at %.2f and was made quieter", peak)
        return (wave / max(peak, 1.0)).astype(np.float32)


def _load_text_encoder(model: V2M, name: str, device: torch.device) -> T5TextEncoder:
    words = model.component("text_encoder")
    assert words.folder is not None, "a part that was asked for has been fetched"
    text = T5TextEncoder.load(words.folder, device, config=words.config, state=words.state)
    if text.dim != model.config.text_dim:
        raise DependencyError(
            f"the text encoder of {name!r} gives {text.dim} numbers a token, the model reads {model.config.text_dim}"
        )
    return text


def _between(tell: Callable[[float], None], low: float, high: float) -> ProgressFn:
    def progress(fraction: float) -> None:
        tell(low + (high - low) * fraction)

    return progress
