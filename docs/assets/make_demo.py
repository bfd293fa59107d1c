"""Make the animated picture and the video of the README from a real run of the default recipe.

    uv run python docs/assets/make_demo.py

It writes `demo.webp` (frames of the clip beside the tags, above the report with a moving playhead) and `demo.mp4` (the
output itself).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

import v2m
from v2m.media import video
from v2m.pipeline.report import Axis
from v2m.pipeline.result import Extras, ScoreResult

ASSETS = Path(__file__).parent
CLIP = ASSETS.parents[1] / "data" / "examples" / "bunny_wakes.mp4"
FPS, WIDTH, FRAME_HEIGHT = 5, 720, 225
REPORT_TOP = 222  # pixels of thumbnails that the frame replaces
QUALITY = 45


def main() -> None:
    """Score the example clip and draw one picture for each fifth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "demo.mp4"
        result = v2m.score_video(CLIP, output, extras=Extras(report=True))
        (ASSETS / "demo.mp4").write_bytes(output.read_bytes())
        axis = Axis.from_png(output.with_suffix(".png"))
        report = Image.open(output.with_suffix(".png")).convert("RGB")
    scale = WIDTH / report.width
    report = report.crop((0, REPORT_TOP, report.width, report.height))
    report = report.resize((WIDTH, round(report.height * scale)), Image.Resampling.LANCZOS)
    base = Image.new("RGB", (WIDTH, FRAME_HEIGHT + report.height), "white")
    base.paste(report, (0, FRAME_HEIGHT))
    _write_tags(base, result)
    clip = video.open(CLIP)
    times = np.arange(0, clip.duration, 1 / FPS)
    pictures = []
    for time, frame in zip(times, clip.frames(list(times), width=FRAME_HEIGHT * 16 // 9), strict=True):
        picture = base.copy()
        picture.paste(Image.fromarray(frame), (0, 0))
        column = axis.to_column(float(time)) * scale
        ImageDraw.Draw(picture).line((column, FRAME_HEIGHT, column, base.height - 25), fill="#222222", width=2)
        pictures.append(picture)
    pictures[0].save(
        ASSETS / "demo.webp", save_all=True, append_images=pictures[1:], duration=round(1000 / FPS), loop=0,
        quality=QUALITY, method=6,
    )  # fmt: skip


def _write_tags(base: Image.Image, result: ScoreResult) -> None:
    tags, alignment = result.tags, result.to_dict()["alignment"]
    lines = [
        ("bold", "Tags and fit to the cuts"),
        ("plain", f"{tags.caption}"),
        ("plain", f"genre: {', '.join(tags.genres)}"),
        ("plain", f"moods: {', '.join(tags.moods)}"),
        ("plain", f"{tags.key}, {tags.tempo:g} beats per minute"),
        ("plain", f"cuts met: {round(alignment['hits'] * alignment['n'])} of {alignment['n']}"),
        ("plain", f"by chance: {alignment['chance'] * alignment['n']:.1f}"),
        ("plain", ""),
        ("small", "red: cuts    blue: music    pink: motion"),
        ("small", "clip: © Blender Foundation, CC-BY 3.0"),
    ]
    pen, left, top = ImageDraw.Draw(base), FRAME_HEIGHT * 16 // 9 + 14, 10
    for kind, text in lines:
        weight, size = "bold" if kind == "bold" else "normal", 12 if kind == "small" else 14
        path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
        pen.text((left, top), text, font=ImageFont.truetype(path, size), fill="#222222")
        top += 21


if __name__ == "__main__":
    main()
