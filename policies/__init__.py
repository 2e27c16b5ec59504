"""Learning methods: one method, one file.

Its tables name them without importing torch, by the `kind` of their settings.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robolearn.policies.backbone import Backbone
    from robolearn.policies.base import TrainablePolicy
    from robolearn.policies.improver import Improver


def _lazy(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(f"robolearn.policies.{module}"), name)


POLICIES: dict[str, Callable[[], "type[TrainablePolicy]"]] = {
    "flow": _lazy("flow", "FlowPolicy"),
    "diffusion": _lazy("diffusion", "DiffusionPolicy"),
    "act2goal": _lazy("act2goal", "Act2GoalPolicy"),
    "susie": _lazy("susie", "SusiePolicy"),
    "cem": _lazy("cem", "CemPolicy"),
    "gcbc": _lazy("gcbc", "GcbcPolicy"),
    "hiql": _lazy("hiql", "HiqlPolicy"),
    "saw": _lazy("saw", "SawPolicy"),
    # made of another policy by post-training
    "recap": _lazy("recap", "RecapPolicy"),
    "fql": _lazy("fql", "FqlPolicy"),
    "dsrl": _lazy("dsrl", "DsrlPolicy"),
    "rlpd": _lazy("rlpd", "RlpdPolicy"),
}
IMPROVERS: dict[str, Callable[[], "Callable[[Any], Improver]"]] = {
    "aloe": _lazy("aloe", "Aloe"),
    "bc": _lazy("bc", "Bc"),
    "dagger": _lazy("dagger", "Dagger"),
    "awr": _lazy("awr", "Awr"),
    "iql": _lazy("iql", "Iql"),
    "q-chunking": _lazy("q_chunking", "QChunking"),
    "recap": _lazy("recap", "Recap"),
    "fql": _lazy("fql", "Fql"),
    "dsrl": _lazy("dsrl", "Dsrl"),
    "rlpd": _lazy("rlpd", "Rlpd"),
}

BACKBONES: dict[str, Callable[[], Callable[..., "Backbone"]]] = {
    "small": _lazy("backbone_small", "SmallBackbone"),
    "pretrained": _lazy("backbone_pretrained", "PretrainedBackbone"),
    "stable-control": _lazy("backbone_stable_control", "StableControlBackbone"),
}
