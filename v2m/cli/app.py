"""The command that opens the page: `v2m app`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from v2m.cli.runner import run_command
from v2m.core.arguments import OneLineParser
from v2m.core.errors import UsageError
from v2m.webapp import recipe_status

LOCAL = ("127.0.0.1", "localhost", "::1")
PASSWORD = "V2M_PASSWORD"  # noqa: S105 - the name of a variable
WAITING = 16  # requests in the queue
logger = logging.getLogger(__name__)


def parse(argv: Sequence[str]) -> Namespace:
    """Raises UsageError for a command that cannot be."""
    parser = OneLineParser(prog="v2m app", description="Opens the web page of v2m.")
    add = parser.add_argument
    add("--host", type=str, default=LOCAL[0], help="address to listen on; this machine alone by default")
    add("--port", type=int, default=7860)
    add("--user", type=str, default=None, help=f"asks for this name and the password in the variable {PASSWORD}")
    add("--upload-mb", type=int, default=512, help="largest file that is taken")
    add("--seconds", type=float, default=600.0, help="longest video that is taken")
    add("--minutes", type=float, default=60.0, help="that one piece of work may take, and that its files are kept")
    add("--browser", action="store_true", help="open it in the browser")
    add("--debug", action="store_true", help="show where an error came from")
    asked = parser.parse_args(list(argv))
    problems = [
        f"{name.replace('_', '-')} {asked[name]} must be above 0"
        for name in ("upload_mb", "seconds", "minutes")
        if asked[name] <= 0
    ]
    problems += [f"port {asked.port} must lie within 0 and 65535"] * (not 0 <= asked.port <= 65535)
    problems += [f"--user needs a password in the variable {PASSWORD}"] * bool(asked.user and not _password())
    if problems:
        raise UsageError("; ".join(problems))
    return asked


def serve(asked: Namespace) -> str:
    """Until it is interrupted."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from v2m.webapp.job_runner import Desk
    from v2m.webapp.sessions import Rooms

    rooms, desk = Rooms(asked.minutes), Desk(asked.minutes)
    os.environ["GRADIO_TEMP_DIR"] = str(rooms.uploads)
    try:
        _open(asked, rooms, desk)
    except KeyboardInterrupt:
        return "closed"
    finally:
        desk.cancel()
        rooms.close()
    return "closed"


def _open(asked: Namespace, rooms: Any, desk: Any) -> None:
    from v2m.webapp import ui
    from v2m.webapp.handlers import Page

    if asked.host not in LOCAL and not asked.user:
        logger.warning("whoever reaches %s can use this page: --user asks for a password", asked.host)
    page = Page(asked.seconds, desk, rooms, _examples())
    desk.ready(recipe_status.ALWAYS)
    page.look_for_recipes()
    blocks = ui.build(page, asked.minutes)
    blocks.queue(max_size=WAITING, default_concurrency_limit=1)
    try:
        blocks.launch(
            server_name=asked.host, server_port=asked.port, inbrowser=asked.browser, share=False, quiet=True,
            auth=(asked.user, _password()) if asked.user else None, max_file_size=asked.upload_mb * 1024 * 1024,
            allowed_paths=[], show_error=False, footer_links=[], css=ui.CSS, prevent_thread_lock=True,
            ssr_mode=False, mcp_server=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(
            f"port {asked.port} of {asked.host} cannot be listened on ({error}): give another --port"
        ) from error
    logger.warning("v2m is at %s", blocks.local_url)
    blocks.block_thread()


def _password() -> str:
    return os.environ.get(PASSWORD, "")


def _examples() -> tuple[Path, ...]:
    """Those of the repository; a package that was installed has none."""
    folder = Path(__file__).parents[2] / "data" / "examples"
    return tuple(sorted(folder.glob("*.mp4")))


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    return run_command(lambda given: serve(parse(given)), argv, name="v2m app", flags={})
