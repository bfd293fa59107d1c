"""TensorFlow checkpoints without TensorFlow: what is written is read; broken and hostile files are one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fixtures.tiny import tensorflow_checkpoint as writer
from v2m.core.errors import DependencyError
from v2m.pretrained.tensorflow_checkpoint import read_tensorflow_checkpoint


def variables() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((), (3,), (2, 5), (4, 3, 2, 1), (200,))
    names = (f"layer_{n}/{leaf}" for n in range(4) for leaf in ("bias", "kernel", "kernel/Adam", "kernel/Adam_1"))
    return {name: torch.randn(shapes[n % 5], generator=generator) for n, name in enumerate(names)}


def test_variables_are_read_as_written(tmp_path: Path) -> None:
    """Sixteen names in four blocks, with and without shared prefixes; offsets of more than one byte."""
    written = variables()
    result = read_tensorflow_checkpoint(writer.write(tmp_path, written))
    assert list(result) == sorted(written)
    assert all(
        torch.equal(result[name], value) and result[name].shape == value.shape for name, value in written.items()
    )


def test_other_types_are_read(tmp_path: Path) -> None:
    writer.write(tmp_path, {})
    values = np.array([3, -2], "<i8")
    (tmp_path / ".data-00000-of-00001").write_bytes(values.tobytes())
    shape = writer.field(2, writer.field(2, writer.field(1, 2)))
    step = writer.field(1, 9) + shape + writer.field(5, 16)
    (tmp_path / ".index").write_bytes(writer.table([(b"", writer.field(1, 1)), (b"step", step)]))
    assert read_tensorflow_checkpoint(tmp_path)["step"].tolist() == [3, -2]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (writer.field(1, 7) + writer.field(5, 4), "a variable is of type 7"),
        (writer.field(1, 1) + writer.field(5, 4) + writer.field(7, b""), "stored in slices"),
        (writer.field(1, 1) + writer.field(5, 8), r"of shape \[\] does not fit 8 bytes at 0"),
        (writer.field(1, 1) + writer.field(4, 99) + writer.field(5, 4), r"does not fit 4 bytes at 99"),
        (writer.field(1, b"float"), "is no number"),
        (writer.field(1, 1) + writer.field(2, 3), "is no message"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 11, "longer than 64 bits"),
        (b"\x08", "index out of range"),
    ],
)
def test_unknown_kinds_of_variables_are_refused(entry: bytes, problem: str, tmp_path: Path) -> None:
    writer.write(tmp_path, {"x": torch.zeros(1)})
    (tmp_path / ".index").write_bytes(writer.table([(b"", writer.field(1, 1)), (b"x", entry)]))
    with pytest.raises(DependencyError, match=problem):
        read_tensorflow_checkpoint(tmp_path)


def test_several_data_files_compression_and_endless_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="it has 2 data files, not one"):
        read_tensorflow_checkpoint(writer.write(tmp_path, variables(), shards=2))
    with pytest.raises(DependencyError, match="a block is compressed, of type 1"):
        read_tensorflow_checkpoint(writer.write(tmp_path, variables(), compression=1))
    (tmp_path / ".index").write_bytes(writer.table([(b"x" * 5000, b"")]))
    with pytest.raises(DependencyError, match="a name has 5000 bytes"):
        read_tensorflow_checkpoint(tmp_path)


def test_truncated_and_changed_files_are_one_line(tmp_path: Path) -> None:
    """An index cut anywhere is refused; one with a wrong byte is refused, or read as other tensors."""
    writer.write(tmp_path, variables())
    index = (tmp_path / ".index").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for place in range(0, len(index), 7):
        (tmp_path / ".index").write_bytes(index[:place])
        with pytest.raises(DependencyError, match="no TensorFlow checkpoint that can be read") as caught:
            read_tensorflow_checkpoint(tmp_path)
        assert "\n" not in str(caught.value)
        changed = bytearray(index)
        changed[place] ^= int(random.integers(1, 256))
        (tmp_path / ".index").write_bytes(changed)
        try:
            read_tensorflow_checkpoint(tmp_path)
        except DependencyError:
            refused += 1
    assert refused > 20


def test_missing_files_are_named(tmp_path: Path) -> None:
    writer.write(tmp_path, variables())
    (tmp_path / ".data-00000-of-00001").unlink()
    with pytest.raises(DependencyError, match=re.escape(".data-00000-of-00001' is missing: copy both files")):
        read_tensorflow_checkpoint(tmp_path)
