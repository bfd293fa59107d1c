"""Licenses of models and data: which of them allow commercial use.

One table decides. Its names are those of SPDX, and those that model cards of the Hugging Face hub use. What is not in
it, or not stated, counts as forbidden. `docs/provenance.md` has the sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from v2m.core.errors import LicenseError

NON_COMMERCIAL = "it forbids commercial use"
DEPENDS_ON_SIZE = "whether it allows commercial use depends on how large the user's business is"
# Name in lower case → None where anybody may use the work commercially, else the reason against it.
LICENSES: dict[str, str | None] = {
    **dict.fromkeys(
        (
            *("mit", "mit-0", "isc", "0bsd", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "zlib", "unlicense"),
            *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "public-domain"),
            *("mpl-2.0", "lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0"),
        )
    ),
    **dict.fromkeys(
        (
            *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
            *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
        ),
        NON_COMMERCIAL,
    ),
    **dict.fromkeys(
        ("stabilityai-ai-community", "stabilityai-community", "stable-audio-community", "tongyi-qianwen"),
        DEPENDS_ON_SIZE,
    ),
}
UNKNOWN = "v2m does not know whether it allows commercial use"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class LicensedComponent:
    """A model or a bank of sounds that takes part, with its license.

    Args:
        role: What it does, such as "generator" or "text encoder".
        name: Its folder, repository or file.
        license: Identifier of SPDX, or an expression of these (see `objection`); None where none is known.
        replacement: What to do where the license is refused.
        statement: How to state a license that is not stated.
        missing: Reason why `license` is None.
    """

    role: str
    name: str
    license: str | None
    replacement: str = ""
    statement: str = ""
    missing: str = NOT_STATED

    def to_dict(self) -> dict[str, str | bool | None]:
        """Return plain values for the sidecar."""
        allowed = objection(self.license) is None
        return {"role": self.role, "name": self.name, "license": self.license, "commercial_use": allowed}


def objection(license: str | None) -> str | None:
    """Return why a license is refused for commercial use, None where it allows it.

    Of "A OR B" one needs to allow it, of "A AND B" and of "A, B" all. AND binds strongest, the comma weakest; what has
    brackets counts as unknown.
    """
    if license is None or not license.strip():
        return NOT_STATED
    if re.search(r"[()\[\]]", license):
        return UNKNOWN
    return _first_reason(map(_objection_to_choice, license.lower().split(",")))


def _objection_to_choice(expression: str) -> str | None:
    choices = (re.split(r"\s+and\s+", choice) for choice in re.split(r"\s+or\s+", expression))
    reasons = [_first_reason(map(_reason_against, names)) for names in choices]
    return None if None in reasons else reasons[0]


def _first_reason(reasons: Iterable[str | None]) -> str | None:
    return next(filter(None, reasons), None)


def _reason_against(name: str) -> str | None:
    return LICENSES.get(re.sub(r"-(only|or-later)$", "", name.strip()), UNKNOWN)


def check_commercial_use(components: Iterable[LicensedComponent]) -> None:
    """Raise LicenseError that names each component whose license does not allow commercial use."""
    refused = {}
    for component in components:
        reason = objection(component.license)
        if reason is not None:
            license = f"license {component.missing if reason == NOT_STATED else f'{component.license}: {reason}'}"
            cures = (component.replacement, component.statement if reason in {NOT_STATED, UNKNOWN} else "")
            cure = ", or ".join(filter(None, cures)) or "leave out `commercial_safe`"
            refused.setdefault(
                (component.role, component.name), f"the {component.role} {component.name} ({license}): {cure}"
            )
    if refused:
        raise LicenseError(f"`commercial_safe=True` refuses {'; and '.join(refused.values())}")
