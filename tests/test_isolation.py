"""The suite sees neither the user's environment nor what another test left behind."""

from __future__ import annotations

import importlib
import locale
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import HOME
from tests.isolation import RUNNER, SYSTEM, TERMINAL, environment

ROOT = Path(__file__).parents[1]
SET = {"HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "TMPDIR", "TEMP", "TMP", "PYTHONUSERBASE"}
SET |= {"LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"}
HOSTILE = {
    **{"WANDB_MODE": "offline", "WANDB_API_KEY": "x", "WANDB_SERVICE": "3-1-unix-/nowhere", "V2M_PASSWORD": "x"},
    **{"V2M_FFMPEG": "/nowhere", "HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere", "TRANSFORMERS_OFFLINE": "1"},
    **{"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "7", "SLURM_JOB_ID": "1"},
    **{"LANG": "tr_TR.UTF-8", "LC_ALL": "POSIX", "TZ": "Asia/Kolkata", "COLUMNS": "20", "NO_COLOR": "1"},
    **{"HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere", "http_proxy": "http://127.0.0.1:9", "RANK": "3"},
    **{"PYTHONWARNINGS": "error", "PYTHONHASHSEED": "7", "JSONARGPARSE_DEFAULT_ENV": "true", "IMAGEIO_FFMPEG_EXE": "x"},
    **{"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    **{"MPLBACKEND": "nothing", "WORLD_SIZE": "4"},
}
LOGGER = logging.getLogger("v2m.nothing")


def test_tests_run_in_the_environment_of_the_suite() -> None:
    """Run once more below, in a process that has another."""
    for name in os.environ:
        assert name in {*SYSTEM, *SET, "COLUMNS", "LINES"} or name.startswith(RUNNER), name
    assert Path.home() == HOME
    assert {os.environ[name] for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")} == {"1", ""}
    assert time.tzname == ("UTC", "UTC")
    assert locale.getpreferredencoding(False).lower() in {"utf-8", "utf8"}
    assert os.environ["COLUMNS"] == "80"
    assert not sys.warnoptions
    assert not sys.dont_write_bytecode


def test_user_environment_does_not_reach_the_suite() -> None:
    name = f"{Path(__file__)}::{test_tests_run_in_the_environment_of_the_suite.__name__}"
    own = {name: value for name, value in os.environ.items() if not name.startswith(RUNNER)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", name],
        cwd=ROOT,
        env=own | HOSTILE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_system_and_terminal_variables_are_kept(tmp_path: Path) -> None:
    """Those that OpenBLAS needs on some processors, too; of whom else there is nothing to see."""
    user = {"PATH": "/bin", "OPENBLAS_CORETYPE": "Haswell", "NO_COLOR": "1", "PYTEST_ADDOPTS": "-x"}
    made = environment(user | {"HF_HOME": "/mine", "EDITOR": "vi"}, tmp_path)
    assert made.keys() == user.keys() | SET - {"CUDA_VISIBLE_DEVICES"}
    assert made == made | user
    assert (made["HOME"], made["TZ"]) == (str(tmp_path), "UTC")
    assert not {*TERMINAL} & {*SYSTEM}


def test_bytecode_is_written_elsewhere_for_who_wants_none_beside_the_sources(tmp_path: Path) -> None:
    """Once for all runs and their workers, in a folder that git ignores."""
    name = "PYTHONPYCACHEPREFIX"
    controller = environment({"PYTHONDONTWRITEBYTECODE": "1"}, tmp_path)
    assert controller[name] == environment(controller, tmp_path / "worker")[name]
    assert Path(controller[name]).parent == ROOT / ".pytest_cache"
    assert ".pytest_cache/" in (ROOT / ".gitignore").read_text().splitlines()
    assert environment({"PYTHONDONTWRITEBYTECODE": "1", name: "/mine"}, tmp_path)[name] == "/mine"
    assert name not in environment({}, tmp_path)


def test_script_that_imports_the_suite_leaves_no_folder() -> None:
    code = "from tests.conftest import HOME; assert HOME.is_dir(); print(HOME)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")  # not above: the process that the test above starts needs none


@pytest.fixture(scope="module")
def wandb() -> Any:
    return importlib.import_module("wandb")


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_starts_from_the_same_state(turn: int, torch: Any, wandb: Any, tmp_path: Path) -> None:
    """The first leaves behind all that the second must not see."""
    assert "V2M_LEFT" not in os.environ
    assert "WANDB_SERVICE" not in os.environ
    assert wandb.run is None
    assert "begins_alike" not in str(Path.cwd())
    assert os.umask(0o022) == 0o022
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (LOGGER.level, LOGGER.handlers, LOGGER.disabled, logging.root.manager.disable) == (0, [], False, 0)
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()) == (torch.float32, True, 1)
    assert str(tmp_path) not in sys.path
    assert locale.getpreferredencoding(False).lower() in {"utf-8", "utf8"}
    drawn = random.random(), float(np.random.random()), float(torch.rand(()))
    assert drawn == pytest.approx((0.8444218, 0.5488135, 0.4962566))  # the first of seed 0

    os.environ["V2M_LEFT"] = "x"
    os.chdir(tmp_path)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    LOGGER.setLevel(logging.ERROR)
    LOGGER.addHandler(logging.NullHandler())
    LOGGER.disabled = True
    logging.disable(logging.ERROR)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    sys.path.insert(0, str(tmp_path))
    locale.setlocale(locale.LC_ALL, "C")
    wandb.init(dir=str(tmp_path), mode="offline", settings=wandb.Settings(init_timeout=120.0, silent=True))
    assert "WANDB_SERVICE" in os.environ
