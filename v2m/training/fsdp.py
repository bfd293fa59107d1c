"""FSDP2: weights, gradients, EMA and optimizer states sharded among ranks, with whole checkpoints.

Lightning's ModelParallelStrategy numbers the optimizer's parameters in the model's order. Here they are numbered by the
optimizer's groups, as in a run on one device, so that one file resumes on any number of ranks. Validation, test and
prediction load the EMA weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from v2m.checkpoints import lightning_ckpt
from v2m.core import compat
from v2m.core.errors import UsageError
from v2m.models.music_model import MusicModel

STRATEGY_NAMES = ("fsdp2", "fsdp")  # Lightning itself allows the second on CUDA alone
PRECISIONS = ("32-true", "bf16-mixed")


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 over all ranks, with whole checkpoints."""

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        compat.set_parallel_sizes(self, data=self.num_nodes * self.num_processes, tensor=1)
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state, on the first rank, with parameters numbered as in a run on one device."""
        assert self.model is not None
        options = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = states.get_optimizer_state_dict(self.model, optimizer, options=options)
        if not state:
            return state
        numbers = {name: number for number, name in enumerate(_parameter_names(self.model, optimizer))}
        return _rename_parameters(state, numbers)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Load each rank's shard of the weights (EMA unless training resumes) and optimizers."""
        path = Path(self.broadcast(checkpoint_path))
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        module: Any = self.lightning_module
        assert self.model is not None
        if hasattr(module, "check_adapters"):  # before shapes that differ fail with a message that says less
            module.check_adapters(checkpoint)
        is_fit = module.trainer.state.fn == "fit"
        weights: Any = checkpoint["state_dict"] if is_fit else lightning_ckpt.ema_state(checkpoint, repr(str(path)))
        options = states.StateDictOptions(full_state_dict=True, strict=module.strict_loading)
        states.set_model_state_dict(self.model, weights, options=options)
        options = states.StateDictOptions(full_state_dict=True)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            named: Any = _rename_parameters(state, _parameter_names(self.model, optimizer))
            states.set_optimizer_state_dict(self.model, optimizer, named, options=options)
        return checkpoint


for _name in STRATEGY_NAMES:
    StrategyRegistry.register(_name, FSDP2Strategy, "v2m's FSDP2, with whole checkpoints", override=True)


def check_strategy(trainer: lightning.Trainer) -> None:
    """Raise UsageError for strategies and precisions that this training does not support."""
    strategy, precision = trainer.strategy, str(trainer.precision)
    if precision in {"bf16-true", "16-true"}:
        loss = "rounds weights and times to few digits, so that small updates and the times of frames are lost"
        raise UsageError(f"precision {precision} {loss}: give `trainer.precision=bf16-mixed`")
    if isinstance(strategy, FSDP2Strategy) and precision not in PRECISIONS:
        raise UsageError(f"precision {precision} is not for sharded weights: give {' or '.join(PRECISIONS)}")
    others = ModelParallelStrategy, FSDPStrategy, DeepSpeedStrategy
    if isinstance(strategy, others) and not isinstance(strategy, FSDP2Strategy):
        cure = "give `trainer.strategy=fsdp2`, which shards weights among ranks, or ddp"
        name = type(strategy).__name__
        raise UsageError(f"the strategy {name} keeps checkpoints that are not one whole file: {cure}")


def apply_fsdp(model: MusicModel, strategy: Any) -> None:
    """Shard a model's layers, then the rest, unless it is sharded already or the strategy shards none."""
    if not isinstance(strategy, FSDP2Strategy) or any(isinstance(value, DTensor) for value in model.parameters()):
        return
    mesh = strategy.device_mesh["data_parallel"]
    units: Iterable[nn.Module] = (*model.lm.layers, model)
    for unit in units:  # the last, too, is put back after validation, so that its weights are shards at every save
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def full_tensor(value: Tensor) -> Tensor:
    """Gather a sharded tensor on the CPU, on every rank; other values are returned as they are."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def distribute_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a whole tensor with the device, type and sharding of `like`."""
    value = value.to(like.device, like.dtype)
    if isinstance(like, DTensor):
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value.clone()


def _rename_parameters(state: dict[str, Any], names: Any) -> dict[str, Any]:
    """Return an optimizer's state with each parameter's name or number n replaced by `names[n]`."""
    groups = [{**group, "params": [names[n] for n in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[n]: value for n, value in state["state"].items()}, "param_groups": groups}


def _parameter_names(model: nn.Module, optimizer: Any) -> list[str]:
    """Return parameter names in the order of the optimizer's groups."""
    names = {id(value): name for name, value in model.named_parameters()}
    return [names[id(value)] for group in optimizer.param_groups for value in group["params"]]
