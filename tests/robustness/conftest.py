from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.media_makers import MediaMaker


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> MediaMaker:
    """Makes each file of the corpus when it is first asked for, in a folder of the session."""
    return MediaMaker(Path(tmp_path_factory.mktemp("corpus")))
