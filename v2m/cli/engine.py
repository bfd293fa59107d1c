"""The options of the commands that say where videos are worked on."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from v2m.core.engine import Engine
from v2m.core.errors import UsageError

ENGINE_FLAGS = {"worker_gpus": "--worker-gpus"}


def add_engine_arguments(parser: ArgumentParser) -> None:
    """Add --engine, --address and --worker-gpus; the number of processes is the command's own option."""
    add = parser.add_argument
    add("--engine", choices=["local", "ray"], default="local", help="ray spreads the videos over a Ray cluster")
    address = "with ray: auto or HOST:PORT of a cluster that runs; default: one on this machine alone"
    add("--address", type=str | None, default=None, help=address)
    gpus = "with ray: GPUs of each process; default: 1 where the cluster has any"
    add("--worker-gpus", type=float | None, default=None, help=gpus)


def build_engine(args: Namespace, *, is_parallel: bool = False) -> Engine | None:
    """Return the engine that the options name; None is that of the command.

    `is_parallel` says that the command's own takes a number of processes. Raises UsageError for options that would have
    no effect.
    """
    if args.engine == "ray":
        from v2m.distributed.cluster import LOCAL
        from v2m.distributed.ray_engine import RayEngine

        return RayEngine(args.address or LOCAL, args.processes, args.worker_gpus)
    names = ("address", "worker_gpus") if is_parallel else ("address", "worker_gpus", "processes")
    given = [f"`{name}`" for name in names if args[name] is not None]
    if given:
        raise UsageError(f"{' and '.join(given)} would have no effect: give `engine=ray` as well")
    return None
