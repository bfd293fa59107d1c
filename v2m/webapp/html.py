"""HTML of the page's messages; text of visitors is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from v2m.webapp.form import LABELS

FIELD = re.compile(r"`((?:[a-z]\w*\.)*([a-z]\w*))(?:=([^\s`]+))?`")
CURE = re.compile(r"(.*[:;] )((give|try|leave out|create|cut|free|raise)\b.*)", re.DOTALL)
NO_CURE = "this page cannot change that, ask whoever runs it"
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
    text = to_page_words(str(error))
    return paragraph(text, is_error=True) if text else paragraph(CANCELLED)


def to_page_words(text: str) -> str:
    """Return a message with the page's labels for fields, and only the cures that the page offers."""
    if match := CURE.fullmatch(text):
        problem, cure, verb = match.groups()
        cures = [cure for cure in re.split(r",? or |, ", cure) if _is_on_page(cure)]
        if cures and not CURE.fullmatch(f": {cures[0]}"):
            cures[0] = f"{verb} {cures[0]}"
        text = problem + (", or ".join(cures) or NO_CURE)
    return FIELD.sub(_label, text)


def _is_on_page(cure: str) -> bool:
    return all(match[2] in LABELS for match in FIELD.finditer(cure)) and not re.search(r"\boutput\b|\ba \.\w", cure)


def _label(match: re.Match[str]) -> str:
    label = f"“{LABELS[match[2]]}”" if match[2] in LABELS else match[1]
    return f"{label} {match[3]}" if match[3] else label


def summary(record: Mapping[str, Any], seconds: float) -> str:
    """Return the summary of the sidecar `record` of a job that took `seconds`."""
    length = record["range"]["end"] - record["range"]["start"]
    facts = [f"{length:.1f} s of music in {seconds:.1f} s"]
    if record["mix"]["range_loudness"] is not None:
        facts.append(f"{record['mix']['range_loudness']:.1f} LUFS")
    if alignment := record["alignment"]:
        facts.append(f"{round(alignment['hits'] * alignment['n'])} of {alignment['n']} cuts met")
    facts += [f"warning: {warning}" for warning in record["warnings"]]
    return paragraph("Done: " + ", ".join(map(to_page_words, facts)))
