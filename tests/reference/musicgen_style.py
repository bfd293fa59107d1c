"""What audiocraft's own MusicGen-Style makes of `tests.fixtures.tiny.musicgen_style`, written into its `GOLDEN`.

The package 1.3.0 has no style conditioner. This is for a checkout of facebookresearch/audiocraft, main branch, and of
yizhilll/MERT, whose scripts/mert_hf holds the code that is published beside MERT's weights:

    PYTHONPATH=AUDIOCRAFT python -m tests.reference.musicgen_style MERT/scripts/mert_hf

Beside the dependency group audiocraft that branch imports torchdiffeq, which is on no list of this project. The script
replaces what is downloaded there (T5 and MERT) by tiny ones; nothing else of audiocraft's is touched.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

from tests.fixtures.tiny import encodec, musicgen, t5
from tests.fixtures.tiny import musicgen_style as tiny

PROMPT = "calm ambient music with piano and strings, 72 bpm"
EXCERPT_S, START = 1.5, 1600  # samples at which the excerpt starts
WINDOW_S, STRIDE_S, TOTAL_S = 2.0, 1.6, 3.6
RECORDING_S = STRIDE_S  # audiocraft turns the recording by the stride: the second window has the same excerpt


def load_mert(code: Path) -> Any:
    """The published model, tiny."""
    package = ModuleType("mert_hf")
    package.__path__ = [str(code)]
    sys.modules["mert_hf"] = package
    settings = importlib.import_module("mert_hf.configuration_MERT").MERTConfig(**tiny.mert_config())
    settings.conv_pos_batch_norm = False  # which HuBERT of a newer transformers asks for
    return importlib.import_module("mert_hf.modeling_MERT").MERTModel(settings).eval()


def listed(model: Any) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def build(encoder: str, mert: Any, folder: Path) -> tuple[Any, dict[str, list[int]]]:
    """audiocraft's own MusicGen, from a checkpoint that its loader reads, and its names."""
    import omegaconf
    import transformers
    from audiocraft.models import builders, loaders
    from audiocraft.models.musicgen import MusicGen
    from audiocraft.solvers.compression import CompressionSolver

    tokenizer = transformers.T5Tokenizer.from_pretrained(folder / "t5")
    text_encoder = transformers.T5EncoderModel.from_pretrained(folder / "t5")
    conditioners: Any = importlib.import_module("audiocraft.modules.conditioners")
    conditioners.T5Tokenizer = SimpleNamespace(from_pretrained=lambda _: tokenizer)
    conditioners.T5EncoderModel = SimpleNamespace(from_pretrained=lambda _: text_encoder)
    conditioners.T5Conditioner.MODELS_DIMS["t5-base"] = musicgen.TEXT_DIM
    transformers.AutoModel = SimpleNamespace(from_pretrained=lambda *_, **__: mert)
    encodec.write_audiocraft_codec(folder / "compression_state_dict.bin")
    codec = loaders.load_compression_model(folder)
    compression: Any = CompressionSolver
    compression.model_from_checkpoint = staticmethod(lambda *_: codec)
    settings = musicgen.audiocraft_config(style=encoder)
    names = listed(builders.get_lm_model(omegaconf.OmegaConf.create(settings)))
    package = {"best_state": tiny.random_state(names), "xp.cfg": yaml.safe_dump(settings)}
    torch.save(package, folder / "state_dict.bin")
    model = MusicGen("tiny", codec, loaders.load_lm_model(folder), max_duration=30.0)
    model.max_duration = WINDOW_S
    return model, names


def style_tokens(model: Any, seconds: float, eval_q: int) -> np.ndarray:
    from audiocraft.modules.conditioners import WavCondition

    conditioner = model.lm.condition_provider.conditioners["self_wav"]
    conditioner.set_params(eval_q=eval_q, excerpt_length=seconds)
    wave = torch.from_numpy(tiny.recording())[None, None]
    tokens, mask = conditioner(WavCondition(wave, torch.tensor([wave.shape[-1]]), [tiny.RATE], [None], []))
    assert mask.all()
    return tokens[0].numpy()


def conditions(model: Any, text: str | None, styled: bool, prompt: Any = None) -> Any:
    wave = torch.from_numpy(tiny.recording(RECORDING_S))[None] if styled else None
    return model._prepare_tokens_and_attributes([text], prompt, [wave])[0]


def greedy(model: Any, text: str | None, styled: bool, beta: float | None) -> np.ndarray:
    model.set_generation_params(
        use_sampling=False, duration=TOTAL_S, cfg_coef=3.0, cfg_coef_beta=beta, extend_stride=STRIDE_S
    )
    model.set_style_conditioner_params(eval_q=2, excerpt_length=EXCERPT_S)
    return model._generate_tokens(conditions(model, text, styled), None)[0].numpy().astype(np.int16)


def branch_logits(model: Any, codes: torch.Tensor) -> np.ndarray:
    """Logits of text and style, style, and nothing, for `codes` in their pattern (1, K, T)."""
    lm: Any = importlib.import_module("audiocraft.models.lm")
    model.set_style_conditioner_params(eval_q=2, excerpt_length=EXCERPT_S)
    full = conditions(model, PROMPT, True)
    rows = full + lm._drop_description_condition(full) + lm.ClassifierFreeGuidanceDropout(p=1.0)(full)
    provider = model.lm.condition_provider
    return model.lm(codes.expand(3, -1, -1), [], provider(provider.tokenize(rows))).numpy()


@torch.no_grad()
def main(code: Path) -> None:
    random.randint = lambda low, high: START  # the excerpt's, which is all that is drawn
    mert = load_mert(code)
    names: dict[str, Any] = {"mert": listed(mert)}
    mert.load_state_dict(tiny.random_state(names["mert"]))
    numbers: dict[str, Any] = {}
    for encoder in ("encodec", "mert"):
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent)
            t5.write(folder / "t5")
            model, names[f"style {encoder}"] = build(encoder, mert, folder)
        for seconds, eval_q in ((1.5, 1), (3.0, 3), (4.5, 6)):
            numbers[f"{encoder} {seconds} {eval_q}"] = style_tokens(model, seconds, eval_q)
        if encoder == "encodec":
            wave = torch.from_numpy(tiny.recording()[START : START + int(4.5 * tiny.RATE)])[None, None]
            numbers["encodec codes"] = model.compression_model.encode(wave)[0][0].numpy().astype(np.int16)
    published = musicgen.audiocraft_config(style="mert")["conditioners"]["self_wav"]["style"]
    conditioners: Any = importlib.import_module("audiocraft.modules.conditioners")
    published |= {"transformer_scale": "default", "bins": 1024}
    names["published style"] = listed(conditioners.StyleConditioner(output_dim=1536, device="cpu", **published))
    wave = torch.from_numpy(tiny.recording()[START : START + int(1.5 * tiny.RATE)])[None]
    numbers["mert features"] = mert(wave).last_hidden_state[0, ::9, ::8].numpy()
    text = model.lm.condition_provider.conditioners["description"]
    inputs = text.tokenize([PROMPT])
    numbers["text states"] = text.t5(**inputs).last_hidden_state.numpy()
    codes = torch.from_numpy(np.random.RandomState(3).randint(0, musicgen.CODEBOOK_SIZE + 1, (1, 4, 9)))
    numbers["codes"], numbers["logits"] = codes.numpy().astype(np.int16), branch_logits(model, codes)
    numbers["both 5"] = greedy(model, PROMPT, True, 5.0)
    numbers["both"] = greedy(model, PROMPT, True, None)
    numbers["style"] = greedy(model, None, True, None)
    numbers["text"] = greedy(model, PROMPT, False, None)
    tiny.GOLDEN.with_suffix(".json").write_text(json.dumps(names, indent=0) + "\n")
    np.savez_compressed(tiny.GOLDEN.with_suffix(".npz"), **numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
