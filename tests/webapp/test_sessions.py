"""Folders of sessions are removed at the end of the session or when they expire."""

from __future__ import annotations

from v2m.webapp.sessions import SessionFolders


def test_folders_are_removed_when_their_session_ends_or_they_expire() -> None:
    folders = SessionFolders(max_minutes=60)
    try:
        one, two, other = folders.create("a"), folders.create("a"), folders.create("b")
        (one / "film.mp4").write_bytes(b"x")
        folders.remove("a")
        assert not one.exists()
        assert not two.exists()
        assert other.is_dir()
        folders.max_minutes = -1
        folders.remove_expired()
        assert not other.exists()
    finally:
        folders.close()
    assert not folders.root.exists()
