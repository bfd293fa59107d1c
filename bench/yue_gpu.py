"""YuE at its real sizes on a GPU, with random weights: `uv run python -m bench.yue_gpu`.

Builds stage 1 (6.2 B parameters), stage 2 (2 B) and the codec with both decoders in the device's memory, one after the
other as the generator has them, and makes 30 s of instrumental music, and of a song with `--song`. Random weights take
as long as trained ones: no step depends on what is drawn. Each stage is warmed up, timed, and timed again for a few
seconds of music without CUDA graphs. `bandwidth_share` is the share of stage 1 that reading its weights alone would
take, by a copy measured in the same run. The peak is PyTorch's own count. Reported by others for 30 s with the
published script: 150 s on an H800, 360 s on an RTX 4090. Each line is one JSON object, the last one with all figures.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bench import roofline
from bench.gpu_figures import Figures
from tests.fixtures.tiny import xcodec, yue_tokenizer
from v2m.core.timing import codec_frames, seconds_to_samples
from v2m.core.types import Tags
from v2m.generators.yue import audio, stage1, stage2
from v2m.generators.yue.prompt import LyricsSection, PromptEncoder, instrumental_sections
from v2m.generators.yue.stage1 import SectionPlan
from v2m.generators.yue.tokenizer import FRAME_RATE, Tokenizer
from v2m.pretrained.codecs.xcodec import XCodec

SHARED_CONFIG: dict[str, Any] = {
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 16_384,
}
STAGE_1: dict[str, Any] = {
    "vocab_size": 83_968,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    **SHARED_CONFIG,
}
STAGE_2: dict[str, Any] = {  # its vocabulary is published; the other sizes are chosen to come to 2 B
    "vocab_size": 83_840,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    **SHARED_CONFIG,
}
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WARMUP_S = 2.0  # of music: kernels are chosen and compiled


@contextmanager
def random_model(config: LlamaConfig, device: torch.device) -> Iterator[LlamaForCausalLM]:
    """Build a random model on the device; free it afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    yield model
    del model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Music:
    """One section of music, made stage by stage; each reads the codes of the one before."""

    def __init__(self, figures: Figures, folder: Path, args: argparse.Namespace) -> None:
        self.figures, self.folder, self.song = figures, folder, args.song
        self.device, self.small, self.seconds = torch.device(args.device), args.small, args.seconds
        self.bandwidth = roofline.copy_bandwidth(self.device, args.small)
        self.graphs = self.device.type == "cuda" or args.small

    def config(self, sizes: dict[str, Any]) -> LlamaConfig:
        return LlamaConfig(**(sizes | SMALL if self.small else sizes))

    def timed(self, function: Callable[[], object]) -> float:
        roofline.synchronize(self.device)
        start = time.perf_counter()
        function()
        roofline.synchronize(self.device)
        return time.perf_counter() - start

    def write_stage1(self) -> Tensor:
        """Codebook 0 (2, T) of both tracks."""
        prompt = PromptEncoder(Tokenizer(self.folder / "tokenizer.model"))
        song, frames = self.song, codec_frames(self.seconds, FRAME_RATE)
        parts = [LyricsSection("verse", "happy sun\nthe music from the sun")] if song else instrumental_sections(1)
        head = prompt.head(Tags(genres=["cinematic"], vocals=song), parts)
        tracks = torch.zeros(2, frames, dtype=torch.long)

        def generate(seconds: float, graph: bool) -> None:
            plan = [SectionPlan(parts[0], codec_frames(seconds, FRAME_RATE))]
            silence = None if song else 0
            options: dict[str, Any] = {"seed": 0, "silence_code": silence, "use_graph": graph}
            (codes,) = stage1.generate_codes(model, prompt, head, plan, **options)
            tracks[:, : codes.shape[1]] = codes.cpu()

        with random_model(self.config(STAGE_1), self.device) as model:
            size = sum(parameter.numel() for parameter in model.parameters())
            read = 2 * (size - model.config.vocab_size * model.config.hidden_size)  # embeddings are looked up
            self.figures.add(stage1_b=size / 1e9)
            generate(WARMUP_S, self.graphs)
            taken = self.timed(lambda: generate(self.seconds, self.graphs))
            floor = frames * (2 if song else 1) * read / self.bandwidth
            self.figures.add(stage1_s=taken, stage1_floor_s=floor, bandwidth_share=floor / taken)
            with self.figures.attempt("stage1_without_graphs"):
                rate = self.timed(lambda: generate(WARMUP_S, False)) / WARMUP_S
                self.figures.add(stage1_without_graphs=rate / (taken / self.seconds))
        return tracks

    def write_stage2(self, tracks: Tensor) -> dict[str, Tensor]:
        """All codes (8, T) of each stem."""
        stems = {"vocals": tracks[0]} if self.song else {}
        stems["instrumental"] = tracks[1]
        refined: list[Tensor] = []

        def refine(seconds: float, graph: bool) -> None:
            frames = codec_frames(seconds, FRAME_RATE)
            refined[:] = stage2.refine(model, [stem[:frames] for stem in stems.values()], use_graph=graph)

        with random_model(self.config(STAGE_2), self.device) as model:
            self.figures.add(stage2_b=sum(parameter.numel() for parameter in model.parameters()) / 1e9)
            refine(WARMUP_S, self.graphs)
            with self.figures.attempt("stage2_without_graphs"):
                seconds_by_graph = [self.timed(lambda: refine(WARMUP_S, graph)) for graph in (True, False)]  # noqa: B023
                self.figures.add(stage2_without_graphs=seconds_by_graph[1] / seconds_by_graph[0])
            self.figures.add(stage2_s=self.timed(lambda: refine(self.seconds, self.graphs)))
        return dict(zip(stems, refined, strict=True))

    def decode(self, codes: dict[str, Tensor]) -> None:
        """Add the seconds of decoding, of the second of two runs."""
        folder = xcodec.write(self.folder / "codec", sizes=xcodec.TINY if self.small else xcodec.PUBLISHED)
        codec, decoders = XCodec.load(folder, self.device), audio.load_vocoders(folder, codes, self.device)
        samples = seconds_to_samples(self.seconds, audio.SAMPLE_RATE)
        seconds = [self.timed(lambda: audio.render(codes, codec, decoders, samples)) for _ in range(2)]
        self.figures.add(decoding_s=seconds[1])

    def make(self) -> None:
        tracks = self.write_stage1()
        codes = self.write_stage2(tracks)
        language_models = self.figures.values["stage1_s"] + self.figures.values["stage2_s"]
        self._add_peak()
        self.figures.add(seconds_for_30s_without_decoding=language_models * 30 / self.seconds)
        self.decode(codes)
        self._add_peak()
        self.figures.add(seconds_for_30s=(language_models + self.figures.values["decoding_s"]) * 30 / self.seconds)
        ratios = [self.figures.values.get(f"stage{stage}_without_graphs", 2.0) for stage in (1, 2)]
        self.figures.add(fastest="graphs" if min(ratios) > 1 else f"graphs are {ratios} times as fast")

    def _add_peak(self) -> None:
        if self.device.type == "cuda":
            self.figures.add(peak_gb=torch.cuda.max_memory_allocated() / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="small models, to try this script")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--song", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device; try this script with --small --device cpu")
    args.seconds = WARMUP_S if args.small else args.seconds
    figures = Figures()
    figures.add(device=roofline.describe(torch.device(args.device))["device"], song=args.song)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yue_tokenizer.write(folder / "tokenizer.model")
        Music(figures, folder, args).make()


if __name__ == "__main__":
    main()
