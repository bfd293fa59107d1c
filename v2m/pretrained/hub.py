"""The Hugging Face hub: snapshots in its cache, downloads announced with size and license, uploads."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Sequence
from glob import escape
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, get_cached_repo_tree, snapshot_download
from tqdm import tqdm

from v2m.core.errors import DependencyError, DiskFullError
from v2m.pretrained.file_patterns import (
    COMMIT,
    checkpoint_folders,
    license_name,
    list_files,
    match_files,
    missing_files,
    unmatched,
)

MODEL_CARD = "README.md"  # fetched where there is one: it names the license
MAX_ATTEMPTS = 3  # each keeps the files that are complete; huggingface_hub itself resumes within a file
UNWRITABLE_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def find_cached(repo: str, revision: str, patterns: Sequence[str]) -> Path | None:
    """The snapshot in the hub's cache if it holds every needed file, else None; no network access."""
    repo_dir = _cache_dir(repo)
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = (repo_dir / "refs" / revision).read_text(encoding="utf-8").strip()
        except OSError:
            return None
    folder = repo_dir / "snapshots" / commit
    if not commit or not folder.is_dir() or missing_files(folder, patterns):
        return None
    try:  # after an interrupted download some files that match a pattern are there, others are not
        tree = [entry.path for entry in get_cached_repo_tree(repo, revision=commit)]
    except errors.CachedRepoTreeNotFoundError:
        return folder  # left by a program that fetches file by file
    return folder if set(match_files(tree, patterns)) <= set(list_files(folder)) else None


def download(
    repo: str, revision: str, patterns: Sequence[str], *, license: str | None = None, download_size: int | None = None
) -> Path:
    """Download the snapshot, except files that are here already; one line on stderr announces it.

    Raises:
        DependencyError: It cannot be fetched; says why, how large it is and where to put it.
        DiskFullError: The disk has no room for it.
    """
    try:
        names, download_size = _announce_download(repo, revision, patterns, license)
        escaped = [escape(name) for name in names]
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return Path(snapshot_download(repo, revision=revision, allow_patterns=escaped))
            except Exception as error:
                if not _is_network_error(error):
                    raise
        return Path(snapshot_download(repo, revision=revision, allow_patterns=escaped))
    except (DependencyError, DiskFullError, MemoryError):
        raise
    except Exception as error:  # of any kind the transport raises: none of it is a bug of the caller
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _disk_full_error(repo, download_size, "the disk is full") from error
        reason = _explain_failure(error, repo, revision)
        where = f"or put its files into {checkpoint_folders()[0] / Path(repo).name}, or give the folder that has them"
        raise DependencyError(
            f"weights {repo}{_size_suffix(download_size)} cannot be fetched: {reason}; {where}", repo
        ) from error


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload `folder` to `repo` in one commit, creating it (`private` or not) if needed; return its URL.

    Raises:
        DependencyError: The upload failed; says why.
    """
    try:
        api = HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Uploaded by v2m")
        return str(url)
    except MemoryError:
        raise
    except Exception as error:  # as in download
        raise DependencyError(f"{repo!r} cannot be uploaded to: {_explain_failure(error, repo, 'main')}") from error


def _announce_download(repo: str, revision: str, patterns: Sequence[str], license: str | None) -> tuple[list[str], int]:
    """Announce a download on stderr and check the disk's room; return the files' names and total bytes."""
    info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
    absent = unmatched(sizes, patterns)
    if absent:
        raise DependencyError(
            f"the repository {repo} has no {', '.join(absent)} at revision {revision}: check the name"
        )
    names = match_files(sizes, [*patterns, MODEL_CARD])
    size = sum(sizes[name] for name in names)
    folder = _cache_dir(repo) / "snapshots" / str(info.sha)
    remaining = sum(sizes[name] for name in names if not (folder / name).is_file())
    card = info.card_data.to_dict() if info.card_data else {}
    terms = license_name(card) or license or "not stated: see its page"
    remaining_note = "" if remaining == size else f", {_format_bytes(remaining)} of it still to come"
    cache = Path(constants.HF_HUB_CACHE)
    tqdm.write(f"fetching {repo}{_size_suffix(size)}{remaining_note}; license: {terms}; into {cache}", file=sys.stderr)
    existing = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < remaining:
        raise _disk_full_error(repo, remaining, f"only {_format_bytes(free)} are free")
    return names, size


def _explain_failure(error: BaseException, repo: str, revision: str) -> str:
    """Reason why the hub refused or failed, and the cure."""
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
    message = " ".join(str(error).split())[:160] or type(error).__name__
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


def _cache_dir(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _disk_full_error(repo: str, size: int | None, state: str) -> DiskFullError:
    amount = "the files" if size is None else _format_bytes(size)
    cure = "free some room, or set HF_HOME to a folder on another disk"
    return DiskFullError(f"{amount} of {repo} are to go into {constants.HF_HUB_CACHE}, but {state}: {cure}")


def _size_suffix(size: int | None) -> str:
    return "" if size is None else f" ({_format_bytes(size)})"


def _format_bytes(size: int) -> str:
    """Bytes in decimal units: 12.4 GB, 1.8 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
