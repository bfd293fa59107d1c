"""Tables of measures, for those loggers that know tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.loggers import Logger, WandbLogger

from v2m.evaluation import tables
from v2m.evaluation.per_clip import Row
from v2m.evaluation.tables import Baselines
from v2m.training.wandb_logger import ResilientWandbLogger

logger = logging.getLogger(__name__)
Systems = Mapping[str, Mapping[str, Row]]


def log_to_wandb(project: str, systems: Systems, beside: Baselines) -> None:
    """A run of W&B of its own, kept in ./wandb where it cannot be sent."""
    here = str(Path.cwd())  # W&B's own process may have begun in another folder
    to = ResilientWandbLogger(project=project, save_dir=here, job_type="metrics")
    log_tables([to], systems, beside, prefix="metrics")
    to.experiment.finish()


def log_tables(
    loggers: Sequence[Logger], systems: Systems, beside: Baselines, *, prefix: str, step: int | None = None
) -> None:
    """Each logger what it can take: both tables, and the values of one system by `prefix`/measure; one that fails does
    not stop the others."""
    values = {}
    for name, columns in tables.summarize(systems, beside).items():
        for system, found in columns.items():
            kind = "" if len(systems) == 1 and system in systems else f"/{system}"
            values[f"{prefix}/{name}{kind}"] = found.value
    for each in loggers:
        try:
            each.log_metrics(values, step)
            if isinstance(each, WandbLogger):
                columns, lines = tables.clip_rows(systems, beside)
                each.log_table(f"{prefix}/clips", columns, lines, step=step)
                each.log_table(
                    f"{prefix}/summary", tables.SUMMARY_HEADER, tables.summary_rows(systems, beside), step=step
                )
        except Exception as error:
            logger.warning("%s did not take the tables (%s: %s)", type(each).__name__, type(error).__name__, error)
