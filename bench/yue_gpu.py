"""YuE at its real sizes on a GPU, with random weights: `uv run python -m bench.yue_gpu`.

Builds stage 1 (6.2 B parameters), stage 2 (2 B) and the codec with both decoders in the device's memory, one after the
other as the generator has them, and makes 30 s of instrumental music, and of a song with `--song`. Random weights take
as long as trained ones: no step depends on what is drawn. The time is that of the whole, models in memory; the peak is
PyTorch's own count. Reported by others for 30 s with the published script: 150 s on an H800, 360 s on an RTX 4090.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tests.fixtures.tiny import xcodec, yue_tokenizer
from v2m.core.timing import codec_frames, seconds_to_samples
from v2m.core.types import Tags
from v2m.generators.yue import audio, stage1, stage2
from v2m.generators.yue.prompt import LyricsSection, PromptEncoder, instrumental_sections
from v2m.generators.yue.stage1 import SectionPlan
from v2m.generators.yue.tokenizer import FRAME_RATE, Tokenizer
from v2m.pretrained.codecs.xcodec import XCodec

SHARED_CONFIG = {
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 16_384,
}
STAGE_1 = LlamaConfig(
    vocab_size=83_968,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    **SHARED_CONFIG,
)
STAGE_2 = LlamaConfig(  # its vocabulary is published; the other sizes are chosen to come to 2 B
    vocab_size=83_840,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=28,
    num_attention_heads=16,
    **SHARED_CONFIG,
)
FULL = xcodec.Sizes(
    encoder=64, decoder=1024, latent=256, hidden=768, layers=12, heads=12, inner=3072, features=512, positions=128,
    vocos=512, vocos_inner=1536, vocos_layers=8,
)  # fmt: skip


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    yield
    torch.cuda.synchronize()
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 2)


@contextmanager
def random_model(config: LlamaConfig) -> Iterator[LlamaForCausalLM]:
    """Build a random model on the device; free it afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e9:.2f} B parameters")
    yield model
    del model
    gc.collect()
    torch.cuda.empty_cache()


def make_music(folder: Path, seconds: float, song: bool, graph: bool) -> dict[str, float]:
    """Return the seconds of each stage."""
    seconds_by_stage: dict[str, float] = {}
    prompt = PromptEncoder(Tokenizer(folder / "tokenizer.model"))
    frames = codec_frames(seconds, FRAME_RATE)
    parts = [LyricsSection("verse", "happy sun\nthe music from the sun")] if song else instrumental_sections(1)
    head = prompt.head(Tags(genres=["cinematic"], vocals=song), parts)
    with random_model(STAGE_1) as model, timed(seconds_by_stage, "stage1"):
        silence = None if song else 0
        (section_codes,) = stage1.generate_codes(
            model, prompt, head, [SectionPlan(parts[0], frames)], seed=0, silence_code=silence, use_graph=graph
        )
        tracks = section_codes.cpu()
    stems: dict[str, Tensor] = {"vocals": tracks[0]} if song else {}
    stems["instrumental"] = tracks[1]
    with random_model(STAGE_2) as model, timed(seconds_by_stage, "stage2"):
        codes = dict(zip(stems, stage2.refine(model, list(stems.values()), use_graph=graph), strict=True))
    device = torch.device("cuda")
    codec, decoders = XCodec.load(folder / "codec", device), audio.load_vocoders(folder / "codec", codes, device)
    with timed(seconds_by_stage, "decoding"):
        audio.render(codes, codec, decoders, seconds_to_samples(seconds, audio.SAMPLE_RATE))
    return seconds_by_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--song", action="store_true")
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yue_tokenizer.write(folder / "tokenizer.model")
        xcodec.write(folder / "codec", sizes=FULL)
        make_music(folder, 2.0, args.song, not args.eager)  # kernels are chosen and compiled
        torch.cuda.reset_peak_memory_stats()
        seconds_by_stage = make_music(folder, args.seconds, args.song, not args.eager)
    total = sum(seconds_by_stage.values())
    print(f"{args.seconds:g} s of music: {seconds_by_stage}, {total:.1f} s in all")
    result = {
        "seconds_for_30s": round(total * 30 / args.seconds, 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "graphs": not args.eager,
        "device": torch.cuda.get_device_name(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
