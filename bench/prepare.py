"""Throughput and memory of `v2m prepare`: hours of video an hour, and the peak in MB.

    uv run python -m bench.prepare                       # tiny random encoders: decoding, analysis, writing
    uv run python -m bench.prepare --real                # random encoders of the published sizes
    uv run python -m bench.prepare --processes 1 2       # one after the other
    uv run python -m bench.prepare --real --separate     # voices are removed

Videos with moving pictures and noise are made first; the peak is that of the process and its children together. The
start of the command is included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, T5Config, T5EncoderModel

from bench.default_recipe import measure
from tests.fixtures.tiny import clip, demucs, encodec, t5

ROOT = Path(__file__).parents[1]


def make_videos(folder: Path, count: int, seconds: float, size: str) -> None:
    folder.mkdir()
    for number in range(count):
        source = f"testsrc2=s={size}:r=30:d={seconds},hue=h={37 * number}"
        inputs = ["-f", "lavfi", "-i", source, "-f", "lavfi", "-i", f"anoisesrc=d={seconds}:seed={number}:a=0.3"]
        codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
        program = imageio_ffmpeg.get_ffmpeg_exe()
        subprocess.run([program, "-v", "error", *inputs, *codecs, folder / f"{number:03d}.mp4"], check=True)


def make_encoders(folder: Path, real: bool) -> dict[str, Path]:
    """Write random encoders; `real` ones in the sizes of CLIP ViT-B/32, EnCodec 32 kHz, T5-base, HTDemucs."""
    folders = {name: folder / name for name in ("vision-encoder", "codec", "text-encoder", "separator")}
    demucs.write(folders["separator"], sizes=demucs.PUBLISHED if real else demucs.SMALL)
    if not real:
        clip.write(folders["vision-encoder"])
        encodec.write(folders["codec"])
        t5.write(folders["text-encoder"])
        return folders
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(CLIPVisionConfig()).save_pretrained(folders["vision-encoder"])
    codec_config = encodec.make_config(codebook_size=2048, hidden_size=128, num_filters=64)
    model = encodec.EncodecModel(codec_config)
    model.save_pretrained(folders["codec"])
    config = T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, architectures=["T5EncoderModel"])
    T5EncoderModel(config).save_pretrained(folders["text-encoder"])
    t5.write_tokenizer(folders["text-encoder"])
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--separate", action="store_true")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_videos(folder / "videos", args.count, args.seconds, args.size)
        folders = make_encoders(folder / "encoders", args.real)
        for processes in args.processes:
            settings = [f"--{name}={path}" for name, path in folders.items()]
            out = folder / f"out{processes}"
            command = [sys.executable, "-m", "v2m", "prepare", *settings, f"--processes={processes}", "--quiet"]
            command += ["--vocals=remove"] * args.separate
            elapsed, _, peak = measure(*command, str(folder / "videos"), str(out))
            size = sum(path.stat().st_size for path in out.glob("*.tar"))
            results.append((processes, args.count * args.seconds / elapsed, peak))
            print(f"{processes} processes: {elapsed:.1f} s, {peak:.0f} MB at the peak, {size / 1e6:.1f} MB of shards")
    _, speed, peak = max(results, key=lambda row: row[1])
    print(json.dumps({"video_hours_per_hour": round(speed, 2), "peak_mb": round(peak, 1)}))


if __name__ == "__main__":
    main()
