"""Policies with a redundant mode, for `robolearn bench-taco`: recorded, trained and fitted.

The mode that shall be chosen is that of the goal that every demonstration is told; the other one is
of a different goal, or of a poor demonstrator. A policy that saw as many of either acts in both
ways, and a little fine-tuning on good demonstrations leaves some of that.
"""

from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from robolearn.policies.configs import KnnConfig, MahalanobisConfig, RndConfig, TacoConfig

if TYPE_CHECKING:
    from robolearn.bench.taco import BenchTacoConfig

Sort = Literal["structured", "scatter"]


class Goals(NamedTuple):
    """What all demonstrations and evaluations of a task are told, and what wrong labels hide."""

    told: str
    pursued: str = ""  # any other


GOALS: Final = {
    "OpenCabinet": Goals(
        "open the left door of the cabinet to 50 percent",
        "open the right door of the cabinet to 50 percent",
    ),
    "OpenDrawer": Goals(
        "open the left drawer to 100 percent", "open the right drawer to 100 percent"
    ),
    "CloseDrawer": Goals(
        "close the left drawer to 0 percent", "close the right drawer to 0 percent"
    ),
    "Lift": Goals("lift the cube to 6 cm", "lift the cube to 12 cm"),
}
TASKS: Final[dict[Sort, tuple[str, ...]]] = {
    "structured": tuple(GOALS),
    "scatter": ("Lift", "OpenCabinet"),
}
GOAL_SEED: Final = 0  # of the episode whose goal is that of a task without any in `GOALS`
FINE_SEED: Final = 2_000_000  # of the first demonstration for fine-tuning
GENTLE: Final = {"learning_rate": 2e-4, "ema": 0.95}  # of fine-tuning
KINDS: Final = (TacoConfig(), KnnConfig(), MahalanobisConfig(), RndConfig())


def prepare(config: "BenchTacoConfig", sort: Sort, env_id: str, folder: Path) -> Path:
    """Records, trains, fine-tunes and fits what is missing; the fine-tuned run."""
    from robolearn.bench.prepared import fitted, trained
    from robolearn.options import FitConfig, TrainConfig

    mixed, good, base, tuned = (folder / name for name in ("mixed", "good", "base", "tuned"))
    _recorded(config, mixed, env_id, sort=sort)
    _recorded(config, good, env_id, sort=None)
    plain: Any = {
        "obs_type": config.obs_type,
        "batch_size": config.batch_size,
        "threads": 1,
        "seed": config.seed,
    }
    schedule: Any = {"steps": config.steps, "save_every": config.steps}
    trained(TrainConfig(mixed, base, policy=config.flow, **schedule, **plain))
    schedule = {"steps": config.tuning, "save_every": config.tuning, "warmup": 1, **GENTLE}
    trained(TrainConfig(good, tuned, init=base, **schedule, **plain))
    for kind in KINDS:
        fitted(FitConfig(tuned, good, tuned / kind.kind, policy=kind, seed=config.seed))
    return tuned


def _recorded(config: "BenchTacoConfig", folder: Path, env_id: str, *, sort: Sort | None) -> None:
    """Demonstrations for fine-tuning, or of a sort that is mixed with good ones."""
    from robolearn.options import RecordConfig, worker_options
    from robolearn.record import record

    plain: Any = {
        "out": folder,
        "env": env_id,
        "obs_type": config.obs_type,
        "instruction": goals(env_id).told,
        **worker_options(config),
    }
    if sort is None:
        record(RecordConfig(**plain, episodes=config.good, seed=FINE_SEED))
    elif sort == "structured":
        plain |= {"variations": {"label": 2}, "pursued": goals(env_id).pursued}
        record(RecordConfig(**plain, episodes=config.demonstrations))
    else:
        half = config.demonstrations // 2
        record(RecordConfig(**plain, episodes=half, quality=0.3))
        record(RecordConfig(**plain, episodes=config.demonstrations))


@cache
def goals(env_id: str) -> Goals:
    """The goals of a task."""
    from robolearn.contract import Info
    from robolearn.registry import make_env

    if known := GOALS.get(env_id.removeprefix("robolearn/").removesuffix("-v0")):
        return known
    with closing(make_env(env_id, obs_type="state")) as env:
        return Goals(str(env.reset(seed=GOAL_SEED)[1][Info.TASK]))
