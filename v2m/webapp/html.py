"""HTML of the page's messages; text of visitors is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

WAITING, CANCELLED = "Waiting for its turn", "Cancelled"
HOW = "To have a part written anew: click where it begins and where it ends on the picture, or type the seconds."


def bar(stage: str, share: float, seconds: float) -> str:
    """A stage of which `share` 0–1 took `seconds`."""
    left = f" · about {max(1, round(seconds / share * (1 - share)))} s left" if 0.05 < share < 1 and seconds > 1 else ""
    return f"<p>{html.escape(stage)} · {share:.0%}{left}</p><progress value='{share:.3f}' max='1'></progress>"


def line(words: str, *, bad: bool = False) -> str:
    return f"<p{' class=bad' if bad else ''}>{html.escape(words)}</p>" if words else ""


def trouble(error: Exception) -> str:
    """Message of an error; a cancelled task is not shown as one."""
    return line(str(error), bad=True) if str(error) else line(CANCELLED)


def summary(record: Mapping[str, Any], seconds: float) -> str:
    """Summary line of the sidecar `record` of a task that took `seconds`."""
    length = record["range"]["end"] - record["range"]["start"]
    facts = [f"{length:.1f} s of music in {seconds:.1f} s"]
    if record["mix"]["loudness"] is not None:
        facts.append(f"{record['mix']['loudness']:.1f} LUFS")
    if met := record["alignment"]:
        facts.append(f"{round(met['hits'] * met['n'])} of {met['n']} cuts on a beat")
    facts += [f"warning: {warning}" for warning in record["warnings"]]
    return line("Done: " + ", ".join(facts))
