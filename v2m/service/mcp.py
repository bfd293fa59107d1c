"""The MCP server: v2m's tools for agents, over standard input and output."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TextIO

import anyio
from anyio import from_thread, to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ValidationError

import v2m
from v2m.core import errors
from v2m.pipeline import recipe_status
from v2m.pipeline.job_runner import Event
from v2m.pipeline.recipes import DEFAULT_RECIPE, list_recipes
from v2m.service import mcp_models, mcp_tools
from v2m.service.mcp_tools import Tools

INSTRUCTIONS = """v2m adds background music that fits to a video.
Call score_video with the path of a video. Set the tags that the user names; others are read from the picture.
The default recipe is `sketch`: it needs no weights and takes seconds. Call list_recipes if another one is wanted.
To change a part of the music, call inpaint_video with the original, the result and two seconds. It reads the JSON that
score_video wrote beside the result (the sidecar): leave that where it is.
Outputs go into new folders; nothing is overwritten. One call works at a time, the others wait."""
MAX_SHARE = 0.99  # of a stage, so that the begin of the next one is always more progress
MAX_PROBLEMS = 5  # of the arguments that one error names
END_S = 10.0  # that calls get to end at a signal; one that reads from a disk that does not answer would never end

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tool:
    """A tool: its models, and `call`, which does the work with checked arguments."""

    description: str
    arguments: type[BaseModel]
    output: type[BaseModel]
    call: Callable[[Any, _Progress], Awaitable[BaseModel]]
    is_read_only: bool


@dataclass
class _Progress:
    """Progress of a call: the number of its stage and the share of it that is done, always rising."""

    session: Any
    total: float
    _stage: int = 0
    _message: str = ""
    _sent: float = field(default=-1.0)

    async def report(self, progress: float, message: str) -> None:
        if progress > self._sent:
            self._sent = progress
            await self.session.report_progress(progress, self.total, message)

    def notify(self, event: Event) -> None:
        """Report an event of a job, from its thread. Raise where the caller has cancelled."""
        from_thread.check_cancelled()
        kind, value = event
        if kind == "stage":
            self._stage, self._message = self._stage + 1, value
        if kind in {"stage", "progress"}:
            share = MAX_SHARE * value if kind == "progress" else 0.0
            from_thread.run(self.report, self._stage + share, self._message)


class McpServer:
    """The protocol's side of the tools: schemas, progress, cancellation, and errors of one line."""

    def __init__(self, tools: Tools) -> None:
        self._work = tools
        self._turn = anyio.Lock()
        self._signal: int | None = None  # that ended the server
        self._tools = {
            "score_video": _Tool(
                "Write a video again with background music that fits it.",
                mcp_models.ScoreArguments,
                mcp_models.ScoreOutput,
                partial(self._job, tools.score),
                False,
            ),
            "list_recipes": _Tool(
                "List the recipes (ways to write the music), and what each lacks on this machine.",
                mcp_models.RecipesArguments,
                mcp_models.RecipesOutput,
                self._list_recipes,
                True,
            ),
            "tag_video": _Tool(
                "Name genres, instruments, moods, tempo and key of music that fits a video; nothing is written.",
                mcp_models.TagArguments,
                mcp_models.TagOutput,
                partial(self._job, tools.tag),
                True,
            ),
            "inpaint_video": _Tool(
                "Write other music between two seconds of a result; its settings and the rest of its music are kept.",
                mcp_models.InpaintArguments,
                mcp_models.ScoreOutput,
                partial(self._job, tools.inpaint),
                False,
            ),
        }
        self._server = Server(
            "v2m",
            version=v2m.__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def run(self, output: TextIO) -> None:
        """Serve until standard input ends. SIGINT, SIGTERM and SIGHUP end the process and the job under way."""
        async with stdio_server(stdout=anyio.wrap_file(output)) as streams:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._end_on_signal, group.cancel_scope)
                    await self._server.run(*streams, self._server.create_initialization_options())
                    group.cancel_scope.cancel()
            finally:
                self._work.close()
                if self._signal is not None:
                    _exit(128 + self._signal)

    async def _end_on_signal(self, scope: anyio.CancelScope) -> None:
        if sys.platform == "win32":  # has no handlers of an event loop
            return
        hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)  # ignored under nohup
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hangup) as signals:
            async for number in signals:
                self._signal = number
                scope.cancel()
                timer = threading.Timer(END_S, _exit, [128 + number])
                timer.daemon = True
                timer.start()

    async def _list_tools(self, context: Any, params: Any) -> ListToolsResult:  # noqa: ARG002 - a handler's shape
        return ListToolsResult(tools=[_to_protocol(name, tool) for name, tool in self._tools.items()])

    async def _call_tool(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            return _error(f"there is no tool {params.name[:80]!r}: there are {', '.join(self._tools)}")
        try:
            arguments = tool.arguments.model_validate(params.arguments or {})
            total = 3.0 + getattr(arguments, "candidates", 1) if tool.output is mcp_models.ScoreOutput else 2.0
            output = await tool.call(arguments, _Progress(context.session, total))
            text = TextContent(type="text", text=output.model_dump_json())
        except ValidationError as error:
            return _error(_problems(error))
        except Exception as error:
            if errors.exit_code(error) == errors.BUG:
                logger.exception("in a call of %s", params.name)
            return _error(errors.format_error(error))
        return CallToolResult(content=[text], structured_content=output.model_dump(mode="json"))

    async def _job(
        self, work: Callable[[Any, mcp_tools.Notify], BaseModel], arguments: BaseModel, progress: _Progress
    ) -> BaseModel:
        async with self._take_turn(progress, 0.0):
            return await to_thread.run_sync(work, arguments, progress.notify)

    @asynccontextmanager
    async def _take_turn(self, progress: _Progress, done: float) -> AsyncIterator[None]:
        """Wait for the call before this one, and report at the progress `done` that there is one."""
        if self._turn.locked():
            await progress.report(done, "Waiting for the call before this one")
        async with self._turn:
            yield

    async def _list_recipes(self, arguments: mcp_models.RecipesArguments, progress: _Progress) -> BaseModel:
        mcp_tools.check_recipe_names(arguments.names)
        names = list(dict.fromkeys(arguments.names)) or list(list_recipes())
        progress.total = len(names) + 1.0
        statuses = self._work.statuses

        def is_known(name: str) -> bool:
            return name in statuses and (name == DEFAULT_RECIPE or not arguments.refresh)

        for number, name in enumerate(names, start=1):
            if is_known(name):
                continue
            async with self._take_turn(progress, number - 0.5):
                if not is_known(name):  # the call before may have looked at it
                    await progress.report(float(number), f"Looking at {name}")
                    check = recipe_status.check_recipe
                    statuses[name] = await to_thread.run_sync(check, name, from_thread.check_cancelled)
        return self._work.describe_recipes(names)


def serve(tools: Tools, output: TextIO) -> None:
    """Serve over standard input and `output` until the input ends."""
    anyio.run(McpServer(tools).run, output)


def _exit(code: int) -> NoReturn:
    """End the process at once: the thread that waits for standard input would outlive the event loop."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _to_protocol(name: str, tool: _Tool) -> Tool:
    return Tool(
        name=name,
        description=tool.description,
        input_schema=tool.arguments.model_json_schema(),
        output_schema=tool.output.model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            read_only_hint=tool.is_read_only,
            destructive_hint=False,
            idempotent_hint=tool.is_read_only,
            open_world_hint=False,
        ),
    )


def _error(line: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=line)], is_error=True)


def _problems(error: ValidationError) -> str:
    """Return what is wrong with arguments, in one line."""
    rows = error.errors(include_url=False)[:MAX_PROBLEMS]
    lines = [f"{'.'.join(map(str, row['loc']))[:80]}: {row['msg']}" for row in rows]
    return " ".join("; ".join(lines).split())
