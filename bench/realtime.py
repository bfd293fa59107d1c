"""Real-time factor of MusicGen-small on the CPU: `uv run python -m bench.realtime`.

A random checkpoint of MusicGen-small's sizes, in transformers' published format: language model, T5-base and EnCodec at
32 kHz. The generator makes pieces of 30 s and of 300 s from a text with classifier-free guidance, text encoder and
codec included; only the loading of the files is left out. `real_time_*` is the seconds of music by the seconds of work,
more than 1 is faster than real time. `logit_error` is of the logits after a prompt, rounded weights against float32,
both relative to the largest; `first_differing_token` is the step at which greedy decoding leaves that of float32 (of
the random weights). transformers' own model generates `--reference-seconds` with the same checkpoint in float32, codec
and text encoder included. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, MusicgenConfig, MusicgenForConditionalGeneration, T5Config

from bench.lm_decoding import bandwidth, bytes_read, next_logits
from tests.fixtures.tiny import encodec, t5
from tests.sketch.stub_videos import video
from v2m.core.types import SamplingConfig, Tags
from v2m.generators.musicgen import MusicGen
from v2m.models.conditioning import CFGBranch
from v2m.models.inference.cpu_kernels import cpu_name
from v2m.models.inference.decoder import Decoder
from v2m.models.inference.fast_linear import Precision
from v2m.models.lm import LM, LMConfig

CODEBOOK_SIZE = 2048
TAGS = Tags(genres=["jazz"], moods=["calm"], instruments=["piano"], tempo=96)
GREEDY_FRAMES = 100


def write_checkpoint(folder: Path) -> Path:
    """Write a random checkpoint of MusicGen-small's sizes, in transformers' format."""
    t5.write(folder)  # for its tokenizer
    text = T5Config(
        d_model=768, d_ff=3072, d_kv=64, num_layers=12, num_heads=12, vocab_size=32128, feed_forward_proj="relu"
    )
    audio = encodec.make_config(codebook_size=CODEBOOK_SIZE, hidden_size=128, num_filters=64)
    decoder: dict[str, Any] = {
        "vocab_size": CODEBOOK_SIZE,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "ffn_dim": 4096,
        "num_codebooks": 4,
        "audio_channels": 1,
        "dropout": 0.0,
        "initializer_factor": 1024**-0.5,
        "pad_token_id": CODEBOOK_SIZE,
        "bos_token_id": CODEBOOK_SIZE,
    }
    parts: Any = {"text_encoder": text.to_dict(), "audio_encoder": audio.to_dict(), "decoder": decoder}
    torch.manual_seed(0)
    model: Any = MusicgenForConditionalGeneration(MusicgenConfig(**parts))
    model.audio_encoder.load_state_dict(encodec.make_model(audio).state_dict())
    special = {"pad_token_id": CODEBOOK_SIZE, "bos_token_id": CODEBOOK_SIZE, "decoder_start_token_id": CODEBOOK_SIZE}
    model.generation_config.update(**special, do_sample=True, guidance_scale=3.0, max_length=1500)
    model.save_pretrained(folder)
    return folder


def real_time(generator: MusicGen, seconds: int) -> tuple[float, str]:
    """Return the seconds of work for a piece of `seconds`, and the linear kernel."""
    start = time.perf_counter()
    soundtrack = generator.generate(video(float(seconds)), TAGS, 1)
    elapsed = time.perf_counter() - start
    assert soundtrack.audio.samples.shape[1] == seconds * soundtrack.audio.sample_rate
    return elapsed, soundtrack.metadata["kernel"]


def transformers_real_time(folder: Path, seconds: float) -> float:
    """Return the seconds of work of transformers' model for each second of music, in float32."""
    model: Any = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(["calm jazz, piano, 96 bpm"], return_tensors="pt")
    start = time.perf_counter()
    with torch.inference_mode():
        audio = model.generate(**inputs, do_sample=True, guidance_scale=3.0, max_new_tokens=round(50 * seconds))
    return (time.perf_counter() - start) / (audio.shape[-1] / encodec.SAMPLE_RATE)


@torch.inference_mode()
def compare_precision(lm: LM, precision: Precision) -> tuple[float, int]:
    """Return the logits' error and the first differing step of greedy decoding, against float32."""
    codes = torch.randint(CODEBOOK_SIZE, (1, lm.config.num_codebooks, 16))
    exact, rounded = next_logits(lm, "fp32", codes), next_logits(lm, precision, codes)
    error = float((rounded - exact).abs().max() / exact.abs().max())

    def greedy(kind: Precision) -> Tensor:
        sampling = SamplingConfig(temperature=0.0)
        return Decoder(lm, precision=kind).generate([CFGBranch(1.0, None)], GREEDY_FRAMES, sampling=sampling, seeds=[0])

    differing = (greedy("fp32") != greedy(precision)).any(dim=1)[0].nonzero()
    return error, int(differing[0]) if len(differing) else GREEDY_FRAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8", "int4"), default="int8")
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 300])
    parser.add_argument("--reference-seconds", type=float, default=5.0, help="0 leaves transformers out")
    args = parser.parse_args()
    rate = bandwidth()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_checkpoint(Path(temporary) / "musicgen-small")
        generator = MusicGen(model=str(folder), device="cpu", precision=args.precision, keep_loaded=True)
        _, kernel = real_time(generator, 2)  # loads the files, compiles and chooses the kernels
        times: dict[str, float] = {}
        for seconds in args.seconds:
            times[f"{seconds}"], _ = real_time(generator, seconds)
            print(f"{seconds:4} s of music in {times[f'{seconds}']:7.1f} s of work", flush=True)
        reference = transformers_real_time(folder, args.reference_seconds) if args.reference_seconds else None
    config = LMConfig(dim=1024, num_layers=24, num_heads=16)
    torch.manual_seed(0)
    error, first = compare_precision(LM(config).eval().requires_grad_(False), args.precision)
    size = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5625}[args.precision]
    floor_ms = 1000 * bytes_read(config, 0, 25 * args.seconds[0], 2, size) / rate
    figures = {
        "audio_s": args.seconds,
        "work_s": [round(value, 1) for value in times.values()],
        **{f"real_time_{name}": round(int(name) / value, 2) for name, value in times.items()},
        "transformers_fp32_real_time": None if reference is None else round(1 / reference, 2),
        "precision": args.precision,
        "kernel": kernel,
        "logit_error": round(error, 4),
        "first_differing_token": first,
        "bandwidth_gb_s": round(rate / 1e9, 1),
        "floor_ms_per_step": round(floor_ms, 1),
        "processor": cpu_name(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
