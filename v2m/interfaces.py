"""The contracts that plug-ins keep. A class needs only the methods: it imports and inherits nothing of v2m."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from v2m.types import Progress, Score, Steering, Tags, Video


@runtime_checkable
class Tagger(Protocol):
    """Looks at a video and says what music would fit. Frozen: the same video gives the same tags.

    It may also have `prepare()`, which makes sure before any work that its weights are on this machine; `release()`,
    which frees its model before the music is written; `weights`, a sequence of `v2m.types.Weights` for the sidecar; and
    `measured(video)`, plain values for the sidecar.
    """

    def tag(self, video: Video, hints: Tags, progress: Progress | None = None) -> Tags:
        """Tags for `video`; every field that `hints` sets is returned as given."""
        ...


@runtime_checkable
class MusicGenerator(Protocol):
    """Writes the music.

    It may also have `release()` and `weights`, as a tagger; `prepare(tags, steering)`, which makes sure before any work
    that its weights are here and that it can do what the user asks for; and `steers`, a set of what it can do out of
    "stems", "midi", "vocals" and the fields of `Steering`: what is asked of it beyond that is refused before any work.
    """

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        steering: Steering | None = None,
        progress: Progress | None = None,
    ) -> Score:
        """Music of exactly `video.duration` (to the sample). The same arguments give the same bytes.

        With `stems` the score also carries the parts that sum to it.
        """
        ...
