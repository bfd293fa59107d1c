"""The command that answers over HTTP: `v2m serve`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from v2m.cli.app import LOCAL
from v2m.cli.runner import run_command
from v2m.core import errors
from v2m.core.arguments import OneLineParser
from v2m.core.errors import UsageError
from v2m.core.timing import Seconds

KEYS = "V2M_KEYS"
DATA = "v2m-jobs"


def build_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    parser = OneLineParser(prog="v2m serve", description="Answers over HTTP: jobs that write videos with music.")
    add = parser.add_argument
    add("--host", type=str, default=LOCAL[0], help="address to listen on; this machine alone by default")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add("--data", type=Path, default=Path(DATA), help="folder of the jobs, which survive a restart")
    add("--key-file", type=Path, default=None, help=f"file with a key a line; or keys with commas between in {KEYS}")
    add("--no-keys", action="store_true", help="let everybody who reaches the address use the service")
    add("--folders", type=Path, nargs="+", default=[], help="folders whose videos a request may name")
    add("--fetch-hosts", type=str, nargs="+", default=[], help="hosts to fetch videos from")
    add("--upload-mb", type=int, default=512, help="largest request that is taken")
    add("--seconds", type=Seconds, default=600.0, help="longest video that is taken")
    add("--minutes", type=float, default=60.0, help="that one job may take")
    add("--retention-hours", type=float, default=24.0, help="that a finished job and its files are kept")
    add("--queue", type=int, default=200, help="jobs that may wait or run")
    add("--queue-per-key", type=int, default=100, help="jobs of one key that may wait or run")
    add("--grace", type=float, default=10.0, help="seconds that the running job is given at the end")
    add("--debug", action="store_true", help="show where an error came from")
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Parse a command. Raise UsageError for an invalid one."""
    args = build_parser().parse_args(list(argv))
    names = ("upload_mb", "seconds", "minutes", "retention_hours", "queue", "queue_per_key")
    problems = [f"{name.replace('_', '-')} {args[name]} must be above 0" for name in names if args[name] <= 0]
    problems += [f"port {args.port} must lie within 0 and 65535"] * (not 0 <= args.port <= 65535)
    problems += [f"{str(folder)!r} is no folder" for folder in args.folders if not folder.is_dir()]
    if args.host not in LOCAL and not (args.key_file or os.getenv(KEYS) or args.no_keys):
        problems.append(f"whoever reaches {args.host} could use this service: give --key-file, or --no-keys")
    if problems:
        raise UsageError("; ".join(problems))
    return args


def serve(argv: Sequence[str]) -> str:
    """Serve until SIGINT or SIGTERM."""
    args = parse(argv)
    from v2m.service import server
    from v2m.service.limits import Keys
    from v2m.service.service import Service, ServiceConfig

    keys = (
        Keys()
        if args.no_keys
        else Keys.from_file(args.key_file)
        if args.key_file
        else Keys(os.getenv(KEYS, "").split(","))
    )
    config = ServiceConfig(
        data=args.data,
        keys=keys,
        folders=tuple(args.folders),
        fetch_hosts=tuple(args.fetch_hosts),
        upload_mb=args.upload_mb,
        max_seconds=args.seconds,
        max_minutes=args.minutes,
        retention_hours=args.retention_hours,
        max_queued=args.queue,
        max_per_key=args.queue_per_key,
        grace_s=args.grace,
    )
    with server.listen(args.host, args.port) as server_socket, contextlib.suppress(KeyboardInterrupt):
        try:
            server.serve(Service(config), server_socket)
        except SystemExit as error:  # which uvicorn raises again, after it has ended in good order
            if error.code != errors.SIGTERM:
                raise
    return "closed"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return run_command(serve, argv, name="v2m serve", flags={})
