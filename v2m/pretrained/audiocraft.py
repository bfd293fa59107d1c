"""Networks of audiocraft, built from its settings and from weights that were read safely.

The only module that imports audiocraft, whose own loaders unpickle without restriction and fetch T5 by themselves. Its
networks draw from torch's global generators: see `seeded`.

B batch, K codebooks, T frames, L text tokens, D dimension of the language model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from v2m.core.errors import DependencyError, error_text
from v2m.pretrained import safe_load
from v2m.pretrained.text import T5TextEncoder


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

    def __init__(self, lm: Any, device: torch.device, num_frames: int, segment_duration: float) -> None:
        self.num_codebooks, self.codebook_size = int(lm.n_q), int(lm.card)
        self.num_frames, self.segment_duration = num_frames, segment_duration
        self.span_len = int(lm.span_len)
        self._lm, self._device = lm, device

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
            raise DependencyError(
                f"{name!r} has settings of which audiocraft makes no MAGNeT: {error_text(error)}"
            ) from error
        safe_load.check_finite(state, f"{name!r}")
        safe_load.load_strict(lm, state, f"the MAGNeT that {name!r} describes", assign=True)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        lm = lm.to(device=device, dtype=dtype).eval()
        # audiocraft aligns these masks to 8 frames for the kernels of xformers, which few devices have
        masks = [None if k == 0 or lm.subcodes_context < 0 else _local_mask(lm, num_frames) for k in range(lm.n_q)]
        lm.attn_mask_per_stage = masks
        return cls(lm, device, num_frames, float(cfg["dataset"]["segment_duration"]))

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


def _local_mask(lm: Any, num_frames: int) -> Tensor:
    parameter = next(lm.parameters())
    return lm.restricted_context_attn_mask(num_frames, parameter.device, parameter.dtype)


def _text_conditioner(encoder: T5TextEncoder, dim: int) -> Any:
    """Return audiocraft's text conditioner over v2m's T5; `negative_prompt` takes the place of no text."""
    from audiocraft.modules.conditioners import TextConditioner

    class EncodedText(TextConditioner):
        negative_prompt = ""

        def tokenize(self, texts: Sequence[str | None]) -> list[str]:
            return [self.negative_prompt if text is None else text for text in texts]

        def forward(self, inputs: Sequence[str]) -> tuple[Tensor, Tensor]:
            condition = encoder.encode(inputs)
            tokens = self.output_proj(condition.tokens.to(self.output_proj.weight))
            return tokens * condition.mask[..., None], condition.mask

    return EncodedText(encoder.dim, dim)
