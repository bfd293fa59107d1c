"""The environment of the test suite: neither the user's settings nor what another test left behind reach a test."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import site
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

BYTECODE = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
# Variables without which programs are not found or do not start, on any of the platforms. All others are settings.
SYSTEM = (
    *("PATH", "PATHEXT", "SHELL", "COMSPEC", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "PROGRAMDATA", "PROGRAMFILES"),
    *("NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE", "USER", "LOGNAME", "USERNAME"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "NIX_LD"),
    *("NIX_LD_LIBRARY_PATH", "FONTCONFIG_FILE", "FONTCONFIG_PATH"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_ROOT", "PYENV_VERSION", "__PYVENV_LAUNCHER__"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX"),
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),  # on processors that OpenBLAS takes for others
    "CUDA_VISIBLE_DEVICES",  # which GPUs are the user's to take; hidden where no test needs one
)
# Of those who run or watch the tests: pytest and its plugins, coverage, editors, debuggers.
RUNNER = ("PYTEST", "COV_", "COVERAGE_", "PYCHARM_", "TEAMCITY_", "VSCODE_", "TEST_RUN_PIPE", "RUN_TEST_IDS_", "PYDEVD")
# Of pytest's own output, and hidden while a test runs.
TERMINAL = ("CI", "BUILD_NUMBER", "TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS")


def environment(user: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the variables of the test process, given those that it was started with and an empty folder."""
    kept = {name: value for name, value in user.items() if name in SYSTEM + TERMINAL or name.startswith(RUNNER)}
    homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(home))
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), tempfile.gettempdir())
    language = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    # Who wants no bytecode beside the sources gets it elsewhere: to compile what the tests import costs more than most
    # of them. It stays for the next run, as the bytecode beside sources does.
    bytecode = {"PYTHONPYCACHEPREFIX": str(BYTECODE)} if user.get("PYTHONDONTWRITEBYTECODE") else {}
    # Threads of tiny models that wait for each other cost more than they do.
    threads = {"OMP_NUM_THREADS": "1"}
    return bytecode | kept | homes | folders | language | threads | {"PYTHONUSERBASE": site.getuserbase()}


def isolate(home: Path) -> None:
    """Put the test process, and what it starts, into the environment of the suite."""
    _set(environment(os.environ, home))
    if prefix := os.environ.get("PYTHONPYCACHEPREFIX"):
        sys.dont_write_bytecode, sys.pycache_prefix = False, prefix
    with suppress(locale.Error):  # which this platform does not have
        locale.setlocale(locale.LC_ALL, "")
    if hasattr(time, "tzset"):
        time.tzset()
    os.umask(0o022)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.warnoptions.clear()  # of PYTHONWARNINGS, handed on to the processes that Python starts


def _set(variables: Mapping[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


@contextmanager
def restored() -> Iterator[None]:
    """Undo what is done within to the state of the process."""
    with ExitStack() as stack:
        for keep in (_variables, _python, _signals, _loggers, _random, _torch, _wandb):  # W&B first on the way out
            stack.callback(keep())
        for name in TERMINAL:
            os.environ.pop(name, None)
        os.environ |= {"COLUMNS": "80", "LINES": "24"}
        yield


def _variables() -> Callable[[], None]:
    before = dict(os.environ)
    return lambda: _set(before)


def _python() -> Callable[[], None]:
    folder, mask, path, arguments = Path.cwd(), os.umask(0o022), list(sys.path), list(sys.argv)
    hooks, language = (sys.exit, sys.excepthook), locale.setlocale(locale.LC_ALL)

    def restore() -> None:
        os.chdir(folder)
        os.umask(mask)
        sys.path[:], sys.argv[:] = path, arguments
        sys.exit, sys.excepthook = hooks  # pyright: ignore[reportAttributeAccessIssue]  # W&B sets its own
        locale.setlocale(locale.LC_ALL, language)

    return restore


def _signals() -> Callable[[], None]:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:  # None: not of Python
                signal.signal(number, handler)

    return restore


def _loggers() -> Callable[[], None]:
    modules = set(sys.modules)
    before = {each: _settings(each) for each in [logging.root, *logging.root.manager.loggerDict.values()]}
    disabled = logging.root.manager.disable

    def restore() -> None:
        logging.disable(disabled)
        for each, settings in before.items():
            if settings is None or _settings(each) == settings:
                continue
            package = each.name.partition(".")[0]
            if package in modules or package not in sys.modules:  # else: what the package itself set on import
                each.setLevel(settings[0])
                each.handlers[:], each.filters[:] = settings[1:3]
                each.propagate, each.disabled = settings[3:]

    return restore


def _settings(each: Any) -> tuple[Any, ...] | None:
    if not isinstance(each, logging.Logger):  # a place for one
        return None
    return each.level, list(each.handlers), list(each.filters), each.propagate, each.disabled


def _random() -> Callable[[], None]:
    """The same numbers for each test, whichever ran before."""
    import numpy as np  # not above: it reads the environment

    state, drawn = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)

    def restore() -> None:
        random.setstate(state)
        np.random.set_state(drawn)

    return restore


def _torch() -> Callable[[], None]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    drawn, before = torch.default_generator.get_state(), _modes(torch)
    torch.default_generator.manual_seed(0)

    def restore() -> None:
        torch.default_generator.set_state(drawn)
        kind, threads, learns, exact, precision = before
        torch.set_default_dtype(kind)
        torch.set_grad_enabled(learns)
        torch.set_float32_matmul_precision(precision)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if _exactness(torch) != exact:  # to set it imports half of PyTorch
            torch.use_deterministic_algorithms(exact[0], warn_only=exact[1])

    return restore


def _modes(torch: Any) -> tuple[Any, ...]:
    kind, threads, learns = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    return kind, threads, learns, _exactness(torch), torch.get_float32_matmul_precision()


def _exactness(torch: Any) -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _wandb() -> Callable[[], None]:
    """End W&B's own process: the commands of a later test would take it for theirs, as they inherit its address."""

    def restore() -> None:
        wandb = sys.modules.get("wandb")
        if wandb is None or ("WANDB_SERVICE" not in os.environ and wandb.run is None):
            return
        with suppress(Exception, SystemExit):  # its process may have failed, which was the test's to see
            if wandb.run is not None:
                wandb.finish()
        with suppress(Exception, SystemExit):
            wandb.teardown()

    return restore
