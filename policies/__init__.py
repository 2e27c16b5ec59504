"""Learning methods: one method, one file. `POLICIES` names them without importing torch."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robolearn.policies.base import TrainablePolicy


def _lazy(module: str, name: str) -> Callable[[], "type[TrainablePolicy]"]:
    return lambda: getattr(import_module(f"robolearn.policies.{module}"), name)


POLICIES: dict[str, Callable[[], "type[TrainablePolicy]"]] = {
    "flow": _lazy("flow", "FlowPolicy"),
    "diffusion": _lazy("diffusion", "DiffusionPolicy"),
}
