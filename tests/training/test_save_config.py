"""What a logger is told holds no secret."""

from __future__ import annotations

import pytest

from v2m.training.save_config import REDACTED, redact_secrets


def test_secrets_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "abcdefgh12345")
    monkeypatch.setenv("SHORT_KEY", "small")
    given = {
        "model": {"tokens": 5, "text_key": "small", "start": "small"},
        "logger": [{"api_key": "1234", "settings": {"hf_token": "x", "password": None, "n": 1.5}}],
        "data": ("https://me:pw@example.org/a", "run-abcdefgh12345"),
    }
    assert redact_secrets(given) == {
        "model": {"tokens": 5, "text_key": "small", "start": "small"},
        "logger": [{"api_key": REDACTED, "settings": {"hf_token": REDACTED, "password": None, "n": 1.5}}],
        "data": ["https://example.org/a", f"run-{REDACTED}"],
    }
