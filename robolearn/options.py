"""The options of the commands that work with simulator and networks.

They stand apart from their commands because those import torch and MuJoCo, and `--help` shall
answer at once. The comments are the help texts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tyro.conf import Positional

from robolearn.contract import SAFE_ACCELERATION, SAFE_SPEED
from robolearn.policies.configs import (
    DiffusionConfig,
    FlowConfig,
    KnnConfig,
    MahalanobisConfig,
    RndConfig,
    SubgoalFilterConfig,
    TacoConfig,
)
from robolearn.policies.goal_configs import GcbcConfig, HiqlConfig, SawConfig
from robolearn.policies.latent_configs import (
    Act2GoalConfig,
    CemConfig,
    GoalWriterConfig,
    SusieConfig,
)
from robolearn.units import Units

# Control steps that pass between an action and its effect on the arm beyond those in simulation:
# limiter, bus and servos (`docs/arm.md` has the figures).
ARM_LEAD: Final = 2
TOKEN: Final = "ROBOLEARN_TOKEN"  # variable of the secret that a server and its clients share
Preset = Literal["demo", "long", "tiny"]
WORKERS: Final = ("workers", "ray")  # change no episode


def check_at_least(config: object, least: int, *names: str) -> None:
    """Refuses smaller numbers.

    Raises:
        ValueError: naming the option.
    """
    for name in names:
        if getattr(config, name) < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {getattr(config, name)}; give it {least} or more")


def check_positive(config: object, *names: str) -> None:
    """Refuses zero and less.

    Raises:
        ValueError: naming the option.
    """
    for name in names:
        if getattr(config, name) <= 0:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {getattr(config, name)}; give it more than 0")


def check_choices(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuses names that are not known.

    Raises:
        ValueError: naming the option and the choices.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"--{option} has {name}; choose among {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Who plays the episodes; they are the same."""

    workers: int = 2  # processes
    ray: str = ""  # a Ray cluster instead: its address, auto, or local to start one here


def worker_options(config: WorkerOptions) -> dict[str, Any]:
    """Who plays, for what else a command runs."""
    return {name: getattr(config, name) for name in WORKERS}


@dataclass(frozen=True)
class DemoConfig(WorkerOptions):
    """Record, train, evaluate and report, in one go."""

    preset: Preset = "demo"  # demo: at most 25 minutes on two cores; long: two hours; tiny: a test
    out: Path = Path("runs/demo")  # the run; data goes to <out>/data
    results: Path | None = None  # where to write the summary, e.g. docs/results; none: only <out>
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class RobotOptions:
    """An arm, the cameras that see it, and the human beside it."""

    robot: str = "so101"  # the kind of arm; lerobot:TYPE is one that LeRobot drives
    port: str = "twin"  # its serial device, e.g. /dev/ttyACM0; "twin" rehearses without an arm
    calibration: Path | None = None  # its file in LeRobot's form; the twin needs none
    cameras: dict[str, str] = field(default_factory=dict)  # name and source, e.g. top /dev/video0
    instruction: str = ""  # what is asked for; simulated tasks draw it themselves by default
    teleop: str = "none"  # keyboard, gamepad, or leader:PORT; none leaves the policy alone
    leader_calibration: Path | None = None  # of the leader arm
    seconds: float = 10.0  # an episode lasts at most
    speed: float = SAFE_SPEED  # rad/s that a joint may do
    acceleration: float = SAFE_ACCELERATION  # rad/s^2 that a joint may do
    on_exit: Literal["park", "hold", "limp"] = "park"  # what becomes of the arm at the end
    blackbox: Path = Path("runs/blackbox")  # where faults leave a recording of what led to them
    estop: Path | None = None  # a pipe or device: any byte, or its loss, is an emergency stop


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """A policy, and how it acts."""

    policy: str  # a checkpoint, a run (its newest one), ws://HOST:PORT, or lerobot:FOLDER
    replan_every: int = 4  # steps of a chunk that are executed before looking again
    lead: int = 0  # first steps of a chunk that are left out, since the arm answers so late
    ensemble: float | None = None  # average overlapping chunks, each older one e^x times as heavy
    delay: int = 0  # steps that a decision takes, while the arm goes on with the chunk before
    guided: bool = True  # with delay or background: new chunks go on with the one before
    candidates: int = 1  # chunks to choose from, for a scorer
    scorer: str = ""  # who chooses: taco, knn, medoid, ..., or the folder of a fitted verifier
    fixed_noise: bool = False  # the same noise at every decision of every episode: an ablation
    keep_trying: bool = False  # go on towards goals for which no plan is found, as practice does
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a policy to other programs and machines; see `robolearn.serve`."""

    policy: str  # a checkpoint, or a run (its newest checkpoint)
    host: str = "127.0.0.1"  # any other address needs a token in the variable ROBOLEARN_TOKEN
    port: int = 8000  # 0 takes a free one
    candidates: int = 1  # chunks to choose from, for a scorer
    scorer: str = ""  # who chooses: taco, knn, medoid, ..., or the folder of a fitted verifier
    batch: int = 16  # observations that are answered together, at most
    clients: int = 64  # at once
    max_mib: int = 16  # of one message
    certificate: Path | None = None  # of this host, PEM: serves wss:// instead of ws://
    key: Path | None = None  # of the certificate
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses limits below one.

        Raises:
            ValueError: naming the option.
        """
        check_at_least(self, 1, "candidates", "batch", "clients", "max_mib")


@dataclass(frozen=True, kw_only=True)
class DeployConfig(AgentOptions, RobotOptions):
    """Run a policy on an arm."""

    lead: int = ARM_LEAD
    background: bool = False  # decide while the arm goes on, instead of letting it wait
    goal: tuple[str, ...] = ()  # of policies that are shown it: pictures, words or imagined
    goal_data: Path | None = None  # a recording in which --goal words looks for pictures
    episodes: int = 1
    seed: int = 0  # of the first episode: noise of the policy, and the twin's task
    out: Path | None = None  # dataset folder to record the episodes into

    def __post_init__(self) -> None:
        """Refuses what would leave nothing to do.

        Raises:
            ValueError: naming the option.
        """
        check_at_least(self, 1, "episodes")


@dataclass(frozen=True, kw_only=True)
class GoalPictureConfig:
    """Take a goal picture with an arm's own cameras; see `robolearn.goal_picture`."""

    policy: str  # that shall be shown it: a checkpoint, or a run
    cameras: dict[str, str]  # name and source of each that it looks through, e.g. top /dev/video0
    out: Path = Path("goal")  # folder for a picture of each camera


@dataclass(frozen=True, kw_only=True)
class RecordConfig(RobotOptions, WorkerOptions):
    """Record demonstrations: of a task's scripted expert, or of a human with `--teleop`."""

    out: Path  # dataset folder; an existing one is continued
    env: str = "robolearn/PickPlace-v0"  # environment id, whose expert demonstrates
    robot: str = ""  # so101: a human drives this arm with --teleop; "": the simulated task
    viewer: bool = False  # with --teleop: show the simulated task in a window
    split: str = "train"  # which objects, scenes and goals of the task
    style: str = "any"  # of the expert: fast, slow, left-first, right-first or any
    quality: float = 1.0  # of the expert: 1 able; towards 0 crooked and hesitant
    episodes: int = 800  # how many the dataset shall hold in the end
    seed: int = 1_000_000  # of the first episode; evaluation seeds start at 0
    image_size: tuple[int, int] = (48, 84)  # height and width, pixels
    keep_failures: bool = False  # also keep episodes in which the expert failed
    variations: dict[str, int] = field(default_factory=dict)  # name and level, e.g. push 2 mass 1
    obs_type: Literal["pixels_agent_pos", "state"] = "pixels_agent_pos"  # state: no pictures
    pursued: str = ""  # with the variation label: what is done instead of what is told


Learn = (
    FlowConfig
    | DiffusionConfig
    | Act2GoalConfig
    | SusieConfig
    | CemConfig
    | GcbcConfig
    | HiqlConfig
    | SawConfig
)


@dataclass(frozen=True)
class TrainConfig:
    """Train a policy on a dataset."""

    data: Path  # dataset folder
    out: Path  # run folder: config, log, checkpoints
    policy: Learn = field(default_factory=FlowConfig)
    init: Path | None = None  # fine-tune this policy: a checkpoint, or a run; --policy is its own
    obs_type: Literal["pixels_agent_pos", "state"] = "pixels_agent_pos"  # what it looks at
    steps: int = 4000  # optimiser steps
    batch_size: int = 128  # observations a step
    learning_rate: float = 1e-3  # peak; warms up linearly, then falls to zero as a cosine
    warmup: int = 200  # steps
    weight_decay: float = 1e-4
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, which are the ones that act
    seed: int = 0
    device: str = "cpu"  # "cpu" or "cuda"
    threads: int = 0  # CPU threads; 0 measures which count is fastest here
    log_every: int = 20  # steps
    save_every: int = 1000  # steps
    resume: bool = False  # go on from the newest checkpoint in `out`
    units: Units | None = None  # of somebody else's recording: percent, degrees or si


Verify = TacoConfig | KnnConfig | MahalanobisConfig | RndConfig


@dataclass(frozen=True)
class FitConfig:
    """Fit a verifier to a policy: a scorer that chooses among its candidate chunks."""

    base: Path  # the policy: a checkpoint, or a run (its newest checkpoint)
    data: Path | None = None  # dataset folder; by default what the policy was trained on
    out: Path | None = None  # where the verifier goes; by default into the run, under its kind
    policy: Verify = field(default_factory=TacoConfig)
    queries: int = 16  # noised copies of a demonstrated chunk, of which the nearest counts
    noise: float = 0.125  # in these copies, 0..1; 1 draws whole chunks
    executed: int = 4  # only so many first steps of a chunk decide which copy is nearest
    frames: int = 50_000  # of the dataset are looked at, at most; evenly spread
    seed: int = 0
    device: str = "cpu"
    units: Units | None = None  # of the dataset; by default as the policy was trained

    def __post_init__(self) -> None:
        """Refuses what finds no features.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("queries", "executed", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise is {self.noise}; give a share from 0 to 1")


@dataclass(frozen=True)
class BesideConfig:
    """What there is to say about anything that goes beside a policy that imagines."""

    base: Path  # the policy: a checkpoint, or a run (its newest checkpoint)
    data: Path | None = None  # dataset folder; by default what the policy was trained on
    out: Path | None = None  # where it goes; by default into the run, under its kind
    seed: int = 0
    device: str = "cpu"
    units: Units | None = None  # of the dataset; by default as the policy was trained


@dataclass(frozen=True)
class FilterConfig(BesideConfig):
    """Fit a filter to a policy that imagines: a scorer of what its plans are to lead to."""

    policy: SubgoalFilterConfig = field(default_factory=SubgoalFilterConfig)


@dataclass(frozen=True)
class WriterConfig(BesideConfig):
    """Fit a writer of goals to a policy that is shown them: it imagines what is told."""

    policy: GoalWriterConfig = field(default_factory=GoalWriterConfig)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(AgentOptions, WorkerOptions):
    """Evaluate a policy on unseen seeds."""

    out: Path | None = None  # where the result goes; by default beside the run's checkpoints
    env: str = ""  # environment id; by default the one that the policy was trained on
    episodes: int = 200
    seed: int = 0  # of the first episode; demonstrations use seeds from 1,000,000
    instruction: str = ""  # asks for the same goal in every episode; by default each draws its own
    paraphrases: str = "held_out"  # wording of the instructions: train, held_out or all
    split: str = "train"  # which objects, scenes and goals of the task
    variations: dict[str, int] = field(default_factory=dict)  # name and level, e.g. push 2 mass 1
    # Fixed ones, a factor each and s of delay, e.g. mass 1.4 friction 0.6 delay 0.05
    dynamics: dict[str, float] = field(default_factory=dict)
    goal: tuple[str, ...] = ("demonstration",)  # of policies that are shown it: see goals.py
    goal_data: Path | None = None  # a recording in which --goal words looks for pictures
    shuffle_instructions: bool = False  # tell the agent another episode's instruction: a control
    videos: int = 8  # how many episodes are filmed


@dataclass(frozen=True)
class EnvsConfig:
    """List the environments, show what they look like, or install those of other packages."""

    gallery: Path | None = None  # folder for a picture of all tasks and a video of each
    only: tuple[str, ...] = ()  # these tasks in the gallery, e.g. Lift; by default all
    install: tuple[str, ...] = ()  # packages of others, e.g. metaworld, each on its own


@dataclass(frozen=True)
class ReportConfig:
    """Make one self-contained HTML page of an evaluation."""

    evaluation: Positional[Path]  # the folder that `robolearn eval` wrote
    run: Path | None = None  # the training run, for its learning curve; found by itself in a run
    out: Path | None = None  # the page; by default report.html beside the evaluation
    extra: tuple[Path, ...] = ()  # further evaluations to show beside it
    videos: int = 24  # how many to embed at most


@dataclass(frozen=True)
class IdentifyConfig:
    """Identify the servos of an arm from a recording."""

    data: Path  # dataset folder
    out: Path = Path("runs/identified.json")  # the servos, for simulated tasks and for the twin
    units: Units | None = None  # of somebody else's recording: percent, degrees or si
    episodes: int = 8  # use at most so many, evenly spread; the time grows with them
    p_gain: int = 16  # register P_GAIN of the servos when they were recorded; LeRobot writes 16
