"""The Hugging Face hub: snapshots in its cache, downloads announced with size and license, uploads."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, errors, get_cached_repo_tree, snapshot_download
from tqdm import tqdm

from v2m.core.disk_space import format_bytes, free_bytes
from v2m.core.errors import DependencyError, DiskFullError, error_text

MAX_ATTEMPTS = 3  # each keeps the files that are complete; huggingface_hub itself resumes within a file
UNWRITABLE_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


class HubError(DependencyError):
    """The hub refused or failed; the message is the reason and the cure."""


@dataclass(frozen=True)
class RemoteRepo:
    """A repository at a revision: `sizes` in bytes by file name, and the data of its model card."""

    name: str
    revision: str
    commit: str
    sizes: dict[str, int]
    card: dict[str, Any]


def find_cached(repo: str, revision: str) -> tuple[Path, list[str]] | None:
    """Find the snapshot in the hub's cache, and the names of all files of the repository, offline.

    After an interrupted download some of these are in the snapshot, others are not. No names where they are unknown.
    """
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[], local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
    try:
        return folder, [entry.path for entry in get_cached_repo_tree(repo, revision=folder.name)]
    except errors.CachedRepoTreeNotFoundError:
        return folder, []  # left by a program that fetches file by file


def list_files(repo: str, revision: str) -> RemoteRepo:
    """Ask the hub for the files of a repository; HubError where it does not answer with them."""
    with _explained_errors(repo, revision):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
    return RemoteRepo(repo, revision, str(info.sha), sizes, info.card_data.to_dict() if info.card_data else {})


def download(remote: RemoteRepo, names: Sequence[str], license: str | None) -> Path:
    """Download those of `names` that are not here; one line on stderr announces it.

    Raises HubError where they cannot be fetched, DiskFullError where the disk has no room for them.
    """
    repo, cache = remote.name, Path(constants.HF_HUB_CACHE)
    size = sum(remote.sizes[name] for name in names)
    snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / remote.commit
    remaining = sum(remote.sizes[name] for name in names if not (snapshot / name).is_file())
    note = "" if remaining == size else f", {format_bytes(remaining)} of it still to come"
    terms = license or "not stated: see its page"
    tqdm.write(f"fetching {repo} ({format_bytes(size)}){note}; license: {terms}; into {cache}", file=sys.stderr)
    existing = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    with _explained_errors(repo, remote.revision, size=size):
        free = free_bytes(existing)
        if free < remaining:
            raise _disk_full_error(repo, remaining, f"only {format_bytes(free)} are free")
        patterns = [escape(name) for name in names]
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return Path(snapshot_download(repo, revision=remote.revision, allow_patterns=patterns))
            except Exception as error:
                if not _is_network_error(error):
                    raise
        return Path(snapshot_download(repo, revision=remote.revision, allow_patterns=patterns))


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload `folder` to `repo` in one commit, created if needed; return its URL, or raise HubError."""
    with _explained_errors(repo, "main", prefix=f"{repo!r} cannot be uploaded to: "):
        api = HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Uploaded by v2m")
        return str(url)


@contextmanager
def _explained_errors(repo: str, revision: str, *, prefix: str = "", size: int = 0) -> Iterator[None]:
    """Raise HubError for errors of any kind that the transport raises: none of it is a bug of the caller."""
    try:
        yield
    except (DiskFullError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _disk_full_error(repo, size, "the disk is full") from error
        raise HubError(prefix + _explain_failure(error, repo, revision)) from error


def _disk_full_error(repo: str, size: int, state: str) -> DiskFullError:
    cure = "free some room, or set HF_HOME to a folder on another disk"
    return DiskFullError(f"{format_bytes(size)} of {repo} are to go into {constants.HF_HUB_CACHE}, but {state}: {cure}")


def _explain_failure(error: BaseException, repo: str, revision: str) -> str:
    endpoint = constants.ENDPOINT
    reasons = {
        errors.GatedRepoError: f"its license must be accepted first: do so at {endpoint}/{repo}, then `hf auth login`",
        errors.RevisionNotFoundError: f"it has no revision {revision!r}",
        errors.RepositoryNotFoundError: f"{endpoint} has no such repository, or it is private (then `hf auth login`)",
        errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set and they are not, or not all, in the hub's cache",
    }
    reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    if reason is not None:
        return reason
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _explain_failure(error.__cause__, repo, revision)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        cure = "`hf auth login` with a token that may read it" if status in {401, 403} else "try again later"
        return f"{endpoint} answered {status}: {cure}"
    message = error_text(error, 160)
    if _is_network_error(error):
        return f"{endpoint} cannot be reached ({message}): check the network; files that are complete are kept"
    if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
        return f"{constants.HF_HUB_CACHE} cannot be written to: set HF_HOME to a folder that can"
    return f"{type(error).__name__}: {message}"


def _is_network_error(error: BaseException | None) -> bool:
    """True where the connection failed, rather than the hub refused."""
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _is_network_error(error.__cause__)
    if isinstance(error, (errors.HfHubHTTPError, errors.OfflineModeIsEnabled)):
        return False
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith("http")
