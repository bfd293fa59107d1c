"""Wrong usage of `v2m train` and `v2m tag`: one line and exit code 2, as of the other commands."""

from __future__ import annotations

from types import ModuleType

import pytest

from v2m.cli import tag, train
from v2m.core import errors


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (train, "", 'train.py: expected "subcommand" to be one of {fit,validate,test,predict}'),
        (train, "fitt", "train.py: argument subcommand: invalid choice: 'fitt'"),
        (train, "fit --config none.yaml", 'train.py: Parser key "config": File does not exist: '),
        (train, "fit --trainer.max_steps few", "train.py: Parser key \"trainer.max_steps\": Expected a <class 'int'>"),
        (
            train,
            "fit --data.batch_sise 3",
            "train.py: unknown option --data.batch_sise: did you mean --data.batch_size",
        ),
        (tag, "", "v2m tag: the following arguments are required: data.videos"),
        (tag, "--nothing", "v2m tag: unknown option --nothing: see --help"),
    ],
)
def test_wrong_usage_gives_one_line(
    command: ModuleType, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words.split()) == errors.USAGE
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
