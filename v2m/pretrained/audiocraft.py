"""Networks of audiocraft, built from its settings and from weights that were read safely.

The only module that imports audiocraft, whose own loaders unpickle without restriction and fetch T5 by themselves. Its
networks draw from torch's global generators: see `seeded`.

B batch, K codebooks, T frames, L text tokens, D dimension of the language model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from v2m.core.errors import DependencyError, error_text
from v2m.core.types import WeightsInfo
from v2m.models.inference.windows import plan_windows
from v2m.pretrained import safe_load, weights
from v2m.pretrained.audiocraft_package import SETTINGS_GLOBALS, plain_values
from v2m.pretrained.codecs.base import EnCodec, crossfade
from v2m.pretrained.text import T5TextEncoder

MULTIBAND, MULTIBAND_FILE = "facebook/multiband-diffusion", "mbd_musicgen_32khz.th"
CHUNK_FRAMES, OVERLAP_FRAMES = 1500, 50  # MusicGen's 30 s, and a second of them


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside; restore them afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def import_audiocraft() -> Any:
    """Import audiocraft; ModuleNotFoundError names the package that is missing."""
    logging.getLogger("xformers").setLevel(logging.ERROR)  # of its compiled kernels, which nothing here calls
    import audiocraft.models

    return audiocraft


class Magnet:
    """MAGNeT's language model on a device; float16 on CUDA, as audiocraft has it, else float32.

    Ziv et al., "Masked Audio Generation using a Single Non-Autoregressive Transformer" (2024): each codebook in turn is
    decoded in a few steps, in which all of its masked codes are predicted and the least certain ones masked again.
    """

    def __init__(self, lm: Any, device: torch.device, num_frames: int) -> None:
        self.num_codebooks, self.codebook_size, self.span_len = int(lm.n_q), int(lm.card), int(lm.span_len)
        self.num_frames, self._lm, self._device = num_frames, lm, device

    @classmethod
    def build(
        cls,
        cfg: Mapping[str, Any],
        state: Mapping[str, Tensor],
        text_encoder: T5TextEncoder,
        *,
        frame_rate: int,
        device: torch.device,
        name: str,
    ) -> Magnet:
        """Build the model `name` from `xp.cfg` and `best_state`; DependencyError where they are no MAGNeT's."""
        import_audiocraft()
        try:
            lm, num_frames = _build_magnet_lm(cfg, text_encoder, frame_rate)
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            message = f"audiocraft makes no MAGNeT of the settings of {name!r}: {error_text(error)}"
            raise DependencyError(message) from error
        safe_load.check_finite(state, f"{name!r}")
        safe_load.load_strict(lm, state, f"the MAGNeT that {name!r} describes", assign=True)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        lm = lm.to(device=device, dtype=dtype).eval()
        # audiocraft aligns these masks to 8 frames for the kernels of xformers, which few devices have
        mask = None if lm.subcodes_context < 0 else lm.restricted_context_attn_mask(num_frames, device, dtype)
        lm.attn_mask_per_stage = [None, *[mask] * (lm.n_q - 1)]
        return cls(lm, device, num_frames)

    def generate(
        self,
        prompt: str,
        negative_prompt: str,
        known: Tensor | None,
        *,
        seed: int,
        callback: Callable[[int, int], None],
        **sampling: Any,
    ) -> Tensor:
        """Return codes (1, K, `num_frames`) that begin with `known` (1, K, T).

        `sampling` are arguments of audiocraft's `generate`; `callback` gets the step and their number.
        """
        from audiocraft.modules.conditioners import ConditioningAttributes

        self._lm.condition_provider.conditioners["description"].negative_prompt = negative_prompt
        conditions = [ConditioningAttributes(text={"description": prompt})]
        autocast = torch.autocast(self._device.type, torch.float16, enabled=self._device.type == "cuda")
        with seeded(seed, self._device), autocast:
            return self._lm.generate(known, conditions, max_gen_len=self.num_frames, callback=callback, **sampling)


class MultiBandCodec:
    """EnCodec with MultiBand Diffusion as its decoder, on a device in float32.

    San Roman et al., "From Discrete Tokens to High-Fidelity Audio Using Multi-Band Diffusion" (2023). The noise is the
    same at each call. More than 30 s are decoded in chunks that crossfade, each fitted to EnCodec's own spectrum.
    `weights` are those of the diffusion.
    """

    def __init__(self, codec: EnCodec, processes: list[Any], device: torch.device, weights: WeightsInfo) -> None:
        from audiocraft.models.multibanddiffusion import MultiBandDiffusion

        self.spec, self.hop_length, self.encode, self.weights = codec.spec, codec.hop_length, codec.encode, weights
        self._device = device
        model: Any = SimpleNamespace(  # what MultiBandDiffusion uses of audiocraft's EnCodec
            decode=codec.decode, decode_latent=codec.embed, sample_rate=codec.spec.sample_rate,
            parameters=lambda: iter([torch.zeros(0, device=device)]),
        )  # fmt: skip
        self._diffusion = MultiBandDiffusion(processes, model)

    @classmethod
    def load(cls, codec: EnCodec, device: torch.device) -> MultiBandCodec:
        """Load the published diffusion for MusicGen's codec; DependencyError where it is another codec's."""
        import_audiocraft()
        info = weights.fetch(MULTIBAND, [MULTIBAND_FILE], license="cc-by-nc-4.0")
        path = info.folder / MULTIBAND_FILE
        package: dict[Any, Any] = safe_load.read_pickle(path, SETTINGS_GLOBALS)
        try:
            bands = [package[index] for index in range(package["n_bands"])]
            processes = [_build_process(band, package["sample_rate"], f"{str(path)!r}", device) for band in bands]
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise DependencyError(f"{str(path)!r} is no MultiBand Diffusion ({error_text(error)})") from error
        reads = {(package["sample_rate"], process.model.conv_codec.in_channels) for process in processes}
        embedding = codec.embed(torch.zeros(1, codec.spec.num_codebooks, 1, dtype=torch.long))
        if reads != {(codec.spec.sample_rate, embedding.shape[1])}:
            raise DependencyError(
                f"{str(path)!r} decodes embeddings of (Hz, size) {sorted(reads)}, and this codec has "
                f"({codec.spec.sample_rate}, {embedding.shape[1]}): it is for facebook/encodec_32khz"
            )
        return cls(codec, processes, device, info)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) → audio (B, C, T · `hop_length`), float32, about ±1."""
        out = torch.zeros(len(codes), self.spec.channels, 0, device=self._device)
        plan = plan_windows(codes.shape[-1], CHUNK_FRAMES, CHUNK_FRAMES - OVERLAP_FRAMES)
        for index, (start, end, known) in enumerate(plan):
            with seeded(index, self._device):
                wave = self._diffusion.tokens_to_wav(codes[..., start:end].to(self._device))
            skip = max(known - OVERLAP_FRAMES, 0)
            out = crossfade(out, wave[..., skip * self.hop_length :], (start + skip) * self.hop_length)
        return out


def _build_process(band: Mapping[str, Any], sample_rate: int, name: str, device: torch.device) -> Any:
    """Build the diffusion of one band: its U-Net, the scales of its samples and its noise schedule."""
    from audiocraft.models import builders
    from audiocraft.models.multibanddiffusion import DiffusionProcess
    from audiocraft.modules.diffusion_schedule import NoiseSchedule
    from omegaconf import OmegaConf

    cfg: Any = OmegaConf.create(plain_values(band["cfg"]))
    network, processor = builders.get_diffusion_model(cfg), builders.get_processor(cfg.processor, sample_rate)
    safe_load.load_strict(network, band["model_state"], f"a band of {name}")
    safe_load.load_strict(processor, band["processor_state"], f"the processor of a band of {name}")
    schedule = NoiseSchedule(**cfg.schedule, sample_processor=processor.to(device), device=device)  # type: ignore[arg-type]
    return DiffusionProcess(network.to(device).eval(), schedule)


def _build_magnet_lm(cfg: Mapping[str, Any], text_encoder: T5TextEncoder, frame_rate: int) -> tuple[Any, int]:
    """Build audiocraft's `MagnetLMModel` without weights; also returns its number of frames."""
    from audiocraft.models import builders
    from audiocraft.models.lm_magnet import MagnetLMModel
    from audiocraft.modules.conditioners import ConditioningProvider
    from omegaconf import OmegaConf

    config: Any = OmegaConf.create(dict(cfg))
    settings: dict[str, Any] = {**cfg["transformer_lm"]}
    settings.pop("q_modeling", None)
    segment_duration, span_len = int(cfg["dataset"]["segment_duration"]), int(cfg["masking"]["span_len"])
    # the explicit attention computes what that of xformers does, on every device and with any mask
    settings |= {"memory_efficient": False, "custom": True, "cross_attention": bool(config.fuser.cross)}
    settings |= {"compression_model_framerate": frame_rate, "segment_duration": segment_duration, "span_len": span_len}
    with torch.device("meta"):
        conditioner = _text_conditioner(text_encoder, settings["dim"])
        lm = MagnetLMModel(
            pattern_provider=builders.get_codebooks_pattern_provider(settings["n_q"], config.codebooks_pattern),
            condition_provider=ConditioningProvider({"description": conditioner}),
            fuser=builders.get_condition_fuser(config),
            device="meta",
            dtype=torch.float32,
            **settings,
        )
    num_frames = segment_duration * frame_rate
    return lm, num_frames - num_frames % max(span_len, 1)


def _text_conditioner(encoder: T5TextEncoder, dim: int) -> Any:
    """Return audiocraft's text conditioner over v2m's T5; `negative_prompt` takes the place of no text."""
    from audiocraft.modules.conditioners import TextConditioner

    class EncodedText(TextConditioner):
        negative_prompt = ""

        def tokenize(self, texts: Sequence[str | None]) -> list[str]:
            return [self.negative_prompt if text is None else text for text in texts]

        def forward(self, inputs: Sequence[str]) -> tuple[Tensor, Tensor]:
            with torch.autocast(self.output_proj.weight.device.type, enabled=False):  # T5 overflows in float16
                condition = encoder.encode(inputs)
            tokens = self.output_proj(condition.tokens.to(self.output_proj.weight))
            return tokens * condition.mask[..., None], condition.mask

    return EncodedText(encoder.dim, dim)
