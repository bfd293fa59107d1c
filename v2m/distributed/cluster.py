"""A connection to a Ray cluster: a local one of this process, or one that runs already."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from v2m.core.errors import DependencyError, UsageError, error_text, require_packages

LOCAL = "local"  # the address of a cluster of one's own
MAX_STARTS = 3  # of its processes, for which Ray waits half a minute
CONNECTION_S = 10  # to a cluster of others
CORES_PER_WORKER = 4
OBJECT_STORE_BYTES = 100 << 20  # only records of videos pass through it
# Ray reads these when it is imported.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else it reports its use to its makers
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else a driver under `uv run` uploads its folder to the workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without a GPU hide it themselves
}
LOCAL_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Linux too then listens on the loopback address alone
    "RAY_AUTH_MODE": "token",  # other users of this machine reach that address
}
QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": "error"}


class WorkerPlan(NamedTuple):
    """Number of workers, and the cores and GPUs of each."""

    num_workers: int
    cpus: int
    gpus: float


@contextmanager
def connect(address: str, num_processes: int | None) -> Iterator[Any]:
    """Provide Ray, connected to the cluster at `address`, and disconnect in the end.

    `LOCAL` starts a cluster of this machine's cores; nothing of it is left behind. Where Ray is connected already, that
    connection is used and left as it is. Raises ModuleNotFoundError without Ray, DependencyError where no cluster
    answers.
    """
    require_packages("ray")
    os.environ |= SETTINGS
    if address == LOCAL and "ray" not in sys.modules:
        os.environ |= LOCAL_SETTINGS
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        yield ray
        return
    # Not in TMPDIR: the names of Ray's sockets may have 107 characters in all.
    parent = "/tmp" if os.name == "posix" else None  # noqa: S108 - mkdtemp makes a folder for this user alone
    folder = tempfile.mkdtemp(prefix="v2m-ray-", dir=parent) if address == LOCAL else None
    try:
        with _own_signals():
            if folder is None:
                _join(ray, address)
            else:
                _start(ray, folder, num_processes)
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _join(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray would wait for minutes
            socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), CONNECTION_S).close()
        ray.init(address, **QUIET)
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"no Ray cluster answers at {address!r} ({error_text(error, 200)})"
        raise DependencyError(f"{problem}: start one with ray start --head, or leave out `address`") from error


def _start(ray: Any, folder: str, num_processes: int | None) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for attempt in range(1, MAX_STARTS + 1):
        try:
            ray.init(
                LOCAL, num_cpus=max(cores, num_processes or 1), include_dashboard=False, _temp_dir=folder,
                object_store_memory=OBJECT_STORE_BYTES, **QUIET,
            )  # fmt: skip
            return
        except Exception as error:  # Ray has no other type for a start that took too long
            if attempt == MAX_STARTS:
                problem = f"Ray does not start on this machine ({error_text(error, 200)})"
                raise DependencyError(f"{problem}: leave out `engine`, or try again when it is less busy") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, in whose place Ray puts its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def plan_workers(
    nodes: Sequence[Mapping[str, float]], num_processes: int | None = None, worker_gpus: float | None = None
) -> WorkerPlan:
    """Return the workers for a cluster's nodes, each given by its resources, such as {"CPU": 8, "GPU": 1}.

    By default a worker has a GPU where any node has one, and 4 cores; there are as many as fit. More that are asked for
    wait until there is room. Raises UsageError where no node has what a worker needs.
    """
    gpus = (1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0) if worker_gpus is None else worker_gpus
    if gpus < 0:
        raise UsageError(f"worker_gpus {gpus:g} must be 0 or more")
    if gpus > 1 and gpus % 1:  # which Ray refuses
        raise UsageError(f"worker_gpus {gpus:g} must be a whole number, or below 1")
    usable = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= 1]
    if not usable:
        needed = "a core" if gpus == 0 else f"a core and {gpus:g} GPUs"
        raise UsageError(f"no machine of the cluster has {needed}: add one, or give a lower `worker_gpus`")
    cores = [int(node["CPU"]) for node in usable]
    cpus = min(CORES_PER_WORKER, max(cores))
    if num_processes is not None:
        fitting = (cpu for cpu in range(cpus, 1, -1) if sum(count // cpu for count in cores) >= num_processes)
        return WorkerPlan(num_processes, next(fitting, 1), gpus)
    by_gpu = [int(node["GPU"] / gpus) if gpus else count // cpus for node, count in zip(usable, cores, strict=True)]
    return WorkerPlan(sum(min(count // cpus, most) for count, most in zip(cores, by_gpu, strict=True)), cpus, gpus)
