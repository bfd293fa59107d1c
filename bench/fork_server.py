"""Commands and functions of one checkout, each in a forked process of its own, with heavy libraries imported once.

A child begins as a new process would, but for the imports, and ends without tidying up.

As a script, `python -P bench/fork_server.py ROOT LIBRARY…` with ROOT in PYTHONPATH, it reads a JSON object a line and
answers each with a line that holds the exit code:

* `run`: a script in ROOT ("infer.py") or a module ("v2m"), and `args`, its words; or
* `call`: a function (package.module:function), `path`, its argument, and `kwargs`;
* `log`: the file for what is printed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ForkServer:
    """The parent's end: commands of the checkout `root`, run in `folder`, where caches and temporary files lie, too."""

    def __init__(
        self, root: Path, folder: Path, libraries: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / "log.txt"
        (folder / "tmp").mkdir(exist_ok=True)
        places = {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(root), *libraries],
            cwd=folder,
            env={**os.environ, **places, **(environment or {})},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def run(self, name: str, words: Sequence[str]) -> str:
        """Run a script or module; "", or the last line that a failed one printed."""
        return self._ask({"run": name, "args": list(words)})

    def call(self, function: str, path: Path, kwargs: Mapping[str, Any]) -> str:
        """Likewise call a function with a path."""
        return self._ask({"call": function, "path": str(path), "kwargs": dict(kwargs)})

    def _ask(self, request: Mapping[str, Any]) -> str:
        self._log.write_text("")
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({**request, "log": str(self._log)}) + "\n")
        stdin.flush()
        if stdout.readline().strip() == "0":
            return ""
        return next(iter(self._log.read_text(errors="replace").strip().splitlines()[-1:]), "nothing was printed")

    def close(self) -> None:
        """End the process, and wait until it is gone."""
        self._process.communicate()


def serve(root: Path) -> None:
    """Fork for each line of the input, until it ends."""
    gc.freeze()  # else each child's collections would copy the parent's memory
    for line in sys.stdin:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os._exit(exit_code(root, json.loads(line)))  # an ordinary end would copy it, too, which takes 2 s
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def exit_code(root: Path, request: Mapping[str, Any]) -> int:
    """Run it and return the code that Python would end with."""
    redirect(request["log"])
    try:
        run(root, request)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def redirect(log: str) -> None:
    """Input from nowhere, output and errors into `log`."""
    nowhere, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, stream in ((nowhere, 0), (file, 1), (file, 2)):
        os.dup2(source, stream)


def run(root: Path, request: Mapping[str, Any]) -> None:
    if "call" in request:
        module, _, function = request["call"].partition(":")
        getattr(importlib.import_module(module), function)(Path(request["path"]), **request["kwargs"])
        return
    name = request["run"]
    sys.argv = [name, *request["args"]]
    if name.endswith(".py"):
        runpy.run_path(str(root / name), run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def main() -> None:
    root, *libraries = sys.argv[1:]
    for library in libraries:
        importlib.import_module(library)
    serve(Path(root))


if __name__ == "__main__":
    main()
