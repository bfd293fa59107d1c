"""HTML of the page's messages; text of visitors is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

WAITING, CANCELLED = "Waiting for its turn", "Cancelled"
INPAINT_HINT = "To have a part written anew: click its beginning and its end on the picture, or type the seconds."


def progress_bar(stage: str, share: float, seconds: float) -> str:
    """Return the bar of a stage of which `share` 0–1 took `seconds`."""
    is_predictable = 0.05 < share < 1 and seconds > 1
    remaining = f" · about {max(1, round(seconds / share * (1 - share)))} s left" if is_predictable else ""
    return f"<p>{html.escape(stage)} · {share:.0%}{remaining}</p><progress value='{share:.3f}' max='1'></progress>"


def paragraph(text: str, *, is_error: bool = False) -> str:
    return f"<p{' class=bad' if is_error else ''}>{html.escape(text)}</p>" if text else ""


def error_message(error: Exception) -> str:
    """Return the message of an error; a cancelled job is not shown as one."""
    text = str(error).replace("`", "")  # which marks the names of fields
    return paragraph(text, is_error=True) if text else paragraph(CANCELLED)


def summary(record: Mapping[str, Any], seconds: float) -> str:
    """Return the summary of the sidecar `record` of a job that took `seconds`."""
    length = record["range"]["end"] - record["range"]["start"]
    facts = [f"{length:.1f} s of music in {seconds:.1f} s"]
    if record["mix"]["loudness"] is not None:
        facts.append(f"{record['mix']['loudness']:.1f} LUFS")
    if alignment := record["alignment"]:
        facts.append(f"{round(alignment['hits'] * alignment['n'])} of {alignment['n']} cuts on a beat")
    facts += [f"warning: {warning}" for warning in record["warnings"]]
    return paragraph("Done: " + ", ".join(facts).replace("`", ""))
