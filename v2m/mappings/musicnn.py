"""musicnn's networks between their TensorFlow checkpoints and torch; both have the same layers.

TensorFlow numbers the layers of a kind in the order of their making. Kernels are (time, frequency, in, out) there and
(out, in, time, frequency) here. The state of the optimizer and the count of steps are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from v2m.mappings.state_dict_map import invert, rename_keys

MODEL_NAME = "a network of musicnn"
# Names of our modules by kind, in TensorFlow's order.
CONVOLUTIONS = (*(f"frontend.{k}.conv" for k in range(5)), *(f"midend.{k}.conv" for k in range(3)))
NORMS = ("input_norm", *(name.replace("conv", "norm") for name in CONVOLUTIONS), "pooled_norm", "penultimate_norm")
DENSE = ("penultimate", "output")
_WEIGHT_LEAVES = {"kernel": "weight", "bias": "bias"}
_NORM_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _key_map() -> dict[str, str | None]:
    kinds = (
        ("conv2d", CONVOLUTIONS, _WEIGHT_LEAVES),
        ("batch_normalization", NORMS, _NORM_LEAVES),
        ("dense", DENSE, _WEIGHT_LEAVES),
    )
    keys: dict[str, str | None] = {"beta1_power": None, "beta2_power": None}
    for kind, modules, leaves in kinds:
        for number, module in enumerate(modules):
            layer = f"{kind}_{number}" if number else kind
            for leaf, new in leaves.items():
                keys[f"{layer}/{leaf}"] = f"{module}.{new}"
                keys |= {f"{layer}/{leaf}/{slot}": None for slot in ("Adam", "Adam_1")}
    return keys


KEYS = _key_map()


def from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the variables of a checkpoint. Raises DependencyError for those of another network."""
    transposed = {name: _transpose(value, (3, 2, 0, 1)) for name, value in state.items()}
    return rename_keys(transposed, KEYS, MODEL_NAME)


def to_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state to the variables of a checkpoint, without the optimizer's."""
    transposed = {name: _transpose(value, (2, 3, 1, 0)) for name, value in state.items()}
    return rename_keys(transposed, invert(KEYS), MODEL_NAME)


def _transpose(value: Tensor, kernel_order: tuple[int, int, int, int]) -> Tensor:
    if value.ndim == 4:
        return value.permute(kernel_order).contiguous()
    return value.T.contiguous() if value.ndim == 2 else value
