"""Sketch checks its optional packages before any work."""

from __future__ import annotations

import sys

import pytest

from v2m.core.errors import DependencyError
from v2m.generators.sketch import Sketch


def test_a_missing_synthesizer_is_reported_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "_v2m_tinysoundfont", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(DependencyError, match=r"synthesizer.*is missing: `uv sync`, or `pip install \."):
        Sketch()
