"""Seconds of the parts of one run: `uv run python -m bench.recipe_parts clip.mp4 -o out.mp4`.

Runs the command in this process, with clocks around its parts. Seconds of a part are wall time without the parts inside
it: `decode` is the time that the analysis waits for frames, `mux` that of ffmpeg, which encodes the sound and copies
the pictures; `rest` is start, options, files and everything else. Last line: one JSON object.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

START_S = time.perf_counter()
PARTS = {  # where the function is called by this name: the part
    "v2m.media.video:open": "open",
    "v2m.analysis.visual_features:extract_features": "analysis",
    "v2m.media.decoder_process:_TimedPipe._read": "decode",
    "v2m.sketch.plan.planner:plan_for_style": "composition",
    "v2m.generators.sketch:compose": "composition",
    "v2m.generators.sketch:render_mix": "rendering",
    "v2m.mixing.mixer:mix": "mix",
    "v2m.mixing.mixer:mux": "mux",
}


class PartClock:
    """Seconds of each part, without those of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS.values(), 0.0)
        self._stack: list[tuple[str, float]] = [("rest", 0.0)]  # part, seconds of the parts inside

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer = self._stack[-1][0]
            label = outer if part == "decode" and outer != "analysis" else part  # it also waits for the first frames
            self._stack.append((label, 0.0))
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - start
                _, inside = self._stack.pop()
                self.seconds[label] = self.seconds.get(label, 0.0) + elapsed - inside
                name, total = self._stack[-1]
                self._stack[-1] = name, total + elapsed

        return timed

    def install(self) -> None:
        """Put a clock around each of `PARTS`."""
        for place, part in PARTS.items():
            module, names = place.split(":")
            *owners, name = names.split(".")
            owner = functools.reduce(getattr, owners, import_module(module))
            setattr(owner, name, self.wrap(getattr(owner, name), part))


def main() -> None:
    import_module("v2m.media.decoder_process").start_ahead(sys.argv[1:])  # as infer.py does
    score = import_module("v2m.cli.score")
    clock = PartClock()
    clock.install()
    code = score.main(sys.argv[1:])
    total = time.perf_counter() - START_S
    figures = {**clock.seconds, "rest": total - sum(clock.seconds.values())}
    for name, seconds in figures.items():
        print(f"{name:<12} {seconds:7.3f} s")
    print(json.dumps({f"{name}_s": round(seconds, 3) for name, seconds in figures.items()}))
    sys.exit(code)


if __name__ == "__main__":
    main()
