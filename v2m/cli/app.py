"""The command that opens the page: `v2m app`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser
from v2m.core.errors import UsageError
from v2m.core.timing import Seconds
from v2m.pipeline.recipes import DEFAULT_RECIPE

if TYPE_CHECKING:
    from v2m.pipeline.job_runner import JobRunner
    from v2m.webapp.sessions import SessionFolders

LOCAL = ("127.0.0.1", "localhost", "::1")
PASSWORD = "V2M_PASSWORD"  # noqa: S105 - the name of a variable
MAX_QUEUE = 16  # waiting requests
logger = logging.getLogger(__name__)


def build_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    parser = OneLineParser(prog="v2m app", description="Opens the web page of v2m.")
    add = parser.add_argument
    add("--host", type=str, default=LOCAL[0], help="address to listen on; this machine alone by default")
    add("--port", type=int, default=7860)
    add("--user", type=str, default=None, help=f"ask for this name and the password in the variable {PASSWORD}")
    add("--upload-mb", type=int, default=512, help="largest file that is taken")
    add("--seconds", type=Seconds, default=600.0, help="longest video that is taken")
    add("--minutes", type=float, default=60.0, help="that one piece of work may take, and that its files are kept")
    add("--browser", action="store_true", help="open it in the browser")
    add("--debug", action="store_true", help="show where an error came from")
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Parse a command. Raise UsageError for an invalid one."""
    args = build_parser().parse_args(list(argv))
    limits = {"upload-mb": args.upload_mb, "seconds": args.seconds, "minutes": args.minutes}
    problems = [f"{name} {value} must be above 0" for name, value in limits.items() if value <= 0]
    problems += [f"port {args.port} must lie within 0 and 65535"] * (not 0 <= args.port <= 65535)
    problems += [f"--user needs a password in the variable {PASSWORD}"] * bool(args.user and not os.getenv(PASSWORD))
    if problems:
        raise UsageError("; ".join(problems))
    return args


def serve(argv: Sequence[str]) -> str:
    """Serve the page until it is interrupted."""
    args = parse(argv)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from v2m.pipeline.job_runner import JobRunner
    from v2m.webapp.sessions import SessionFolders

    folders, runner = SessionFolders(args.minutes), JobRunner(args.minutes)
    os.environ["GRADIO_TEMP_DIR"] = str(folders.uploads)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _open(args, folders, runner)
    finally:
        runner.cancel()
        folders.close()
    return "closed"


def _open(args: Namespace, folders: SessionFolders, runner: JobRunner) -> None:
    from v2m.webapp import ui
    from v2m.webapp.handlers import Handlers

    if args.host not in LOCAL and not args.user:
        logger.warning("whoever reaches %s can use this page: --user asks for a password", args.host)
    examples = Path(__file__).parents[2] / "data" / "examples"  # of the repository; an installed package has none
    handlers = Handlers(args.seconds, runner, folders, tuple(sorted(examples.glob("*.mp4"))))
    runner.start(DEFAULT_RECIPE)
    handlers.check_recipes()
    blocks = ui.build(handlers, args.minutes)
    blocks.queue(max_size=MAX_QUEUE, default_concurrency_limit=1)
    try:
        blocks.launch(
            server_name=args.host, server_port=args.port, inbrowser=args.browser, share=False, quiet=True,
            auth=(args.user, os.environ[PASSWORD]) if args.user else None, max_file_size=args.upload_mb * 1024 * 1024,
            allowed_paths=[], show_error=False, footer_links=[], css=ui.CSS, prevent_thread_lock=True,
            ssr_mode=False, mcp_server=False,
        )  # fmt: skip
    except OSError as error:
        problem = f"port {args.port} of {args.host} cannot be listened on ({error})"
        raise UsageError(f"{problem}: give another --port") from error
    logger.warning("v2m is at %s", blocks.local_url)
    blocks.block_thread()


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return run_command(serve, argv, name="v2m app", flags={})
