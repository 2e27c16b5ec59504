"""`robolearn identify`: the servos of an arm, from a recording of its targets and positions.

Three steps. A linear regression of the distance to the target makes a first guess:

    target - q = gravity / kp + hysteresis * direction + lag * velocity

with the gravity torque of the simulated arm in the measured pose. A fit by simulation refines it
(`servo_fit`), and episodes that the fit has not seen check it. Positions and targets leave gaps
that no method closes; `gaps` names them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from robolearn.contract import SO101
from robolearn.dataset import EpisodeDataset
from robolearn.envs.servo_model import ServoModel
from robolearn.envs.task import TIMESTEP
from robolearn.hardware.servo_fit import FITTED, Episode, Fit, Simulator, cross_validate, fit
from robolearn.options import IdentifyConfig

if TYPE_CHECKING:
    from rich.table import Table

ARM: Final = SO101  # the one of assets/
SETTLED: Final = 0.05  # rad: so near to its target, a joint follows it
HELD: Final = 0.15  # rad: a joint that rests so far from its target holds something
STOP: Final = 0.1  # rad from the end of its range, where a joint may lean on its stop
STILL: Final = 0.005  # rad in 0.2 s: three ticks
MOVING: Final = 0.05  # rad/s
TRAVEL: Final = 1.0  # rad: a joint that has moved less says little
FELT: Final = 0.15  # N m: weaker gravity vanishes in the friction of the gear
VAGUE: Final = 2.0  # from one end of an interval to the other: such a parameter is not identified
_BOUNDS: Final = ("percentile_5", "percentile_95")
ALWAYS: Final = (
    "max_torque, kept as it was: a servo at its limit looks like one with an acceleration limit",
    "backlash: it leaves the same trace as friction, so hysteresis is an upper bound for it, and "
    "friction took all of it",
    "jitter and the time within a frame: the delay counts from a frame's nominal time and includes "
    "what the recorder did between reading the position and sending the action",
)


class Regression(NamedTuple):
    """What the linear regression found, (J,) each."""

    kp: np.ndarray  # N m/rad; NaN where no droop shows
    hysteresis: np.ndarray  # rad, to each side
    lag: np.ndarray  # s
    travel: np.ndarray  # rad: the way that there was to learn from


class Score(NamedTuple):
    """How far simulated positions are from the recorded ones, (J,) each."""

    rms: np.ndarray  # rad
    r2: np.ndarray  # share that is explained of what a reference leaves


def main(config: IdentifyConfig) -> int:
    """Runs the command.

    Raises:
        ValueError: the recording is unsuitable; the message says why.
        OSError: `out` cannot be written.
    """
    from rich.console import Console

    console = Console()
    simulator, episodes = read_recording(config)
    model = ServoModel.of(simulator.model, ARM).at_gain(config.p_gain)
    with console.status("simulating the recording; eight episodes take a minute or two"):
        regression = regress(simulator, episodes)
        found = fit(simulator, episodes, first_guess(model, regression))
        scores = assess(simulator, episodes, model, found.servos)
    missing = gaps(found, regression)
    found.servos.save(config.out, _evidence(config, found, regression, scores, missing))
    console.print(_fit_table(found), _motion_table(found.servos, regression), _score_table(scores))
    lines = "\n".join(f"- {sentence}" for sentence in missing)
    console.print(f"Not identifiable from this recording:\n{lines}", highlight=False)
    print(f"{config.out} is ready")
    return 0


# The recording.


def read_recording(config: IdentifyConfig) -> tuple[Simulator, list[Episode]]:
    """The episodes to work with, and a simulator to repeat them.

    Raises:
        ValueError: no dataset, unknown units, another arm or too little motion.
    """
    dataset = EpisodeDataset(config.data, units=config.units)
    dataset.check_arm(ARM)
    simulator = Simulator(ARM, dataset.fps)
    table = dataset.episodes
    long = np.flatnonzero(table.length >= dataset.fps)
    count = min(len(long), config.episodes)
    if count < 2:
        raise ValueError(
            f"{count} episodes of a second or more are too few: give two at least, so that one can "
            "be checked by the other"
        )
    episodes = []
    for index in long[np.linspace(0, len(long) - 1, count).round().astype(int)]:
        frames = slice(table.start[index], table.start[index] + table.length[index])
        target, position = (
            simulator.joints.to_ctrl(dataset.columns[name][frames].astype(np.float64))
            for name in ("action", "agent_pos")
        )
        episodes.append(Episode(target, position, undisturbed(simulator, target, position)))
    return simulator, episodes


def undisturbed(simulator: Simulator, target: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Where nothing but its servo moved or held a joint, bool (T, J), as far as positions tell.

    Three things are left out. The way to the first target, where the arm begins away from it: it is
    a jump that the servo's own acceleration limit shapes. A joint within `STOP` of the end of its
    range. And one that rests farther than `HELD` from its target, with 0.3 s before and after.
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    distance = np.abs(target - position)
    settled = np.logical_or.accumulate(distance < SETTLED)
    low, high = simulator.joints.to_ctrl(np.array([ARM.low, ARM.high]))
    inside = (position > low + STOP) & (position < high - STOP)
    narrow, wide = (2 * round(seconds * simulator.fps) + 1 for seconds in (0.1, 0.3))
    top, bottom = (f(position, narrow, axis=0) for f in (maximum_filter1d, minimum_filter1d))
    held = (top - bottom < STILL) & (distance > HELD)
    return settled & inside & ~maximum_filter1d(held, wide, axis=0)


# The first guess.


def regress(simulator: Simulator, episodes: Sequence[Episode]) -> Regression:
    """Splits the distance to the target into droop, hysteresis and lag; see the module."""
    parts = [_causes(simulator, episode) for episode in episodes]
    gravity, direction, velocity = np.concatenate(parts, 1)
    distance = np.concatenate([e.target - e.position for e in episodes])
    used = np.concatenate([e.used for e in episodes]) & (direction != 0)
    felt = np.abs(gravity * used).max(0) > FELT
    causes = np.stack([gravity * felt, direction, velocity], -1) * used[..., None]
    solutions = [
        np.linalg.lstsq(causes[:, j], distance[:, j] * used[:, j])[0] for j in range(ARM.size)
    ]
    compliance, hysteresis, lag = np.maximum(np.transpose(solutions), 0.0)
    kp = np.divide(1.0, compliance, where=compliance > 0, out=np.full(ARM.size, np.nan))
    travel = np.abs(velocity * used).sum(0) / simulator.fps
    return Regression(kp, hysteresis, lag, travel)


def _causes(simulator: Simulator, episode: Episode) -> np.ndarray:
    """Gravity torque, direction of the last motion (0 before any) and velocity, (3, T, J)."""
    velocity = np.gradient(episode.position, 1 / simulator.fps, axis=0)
    direction = np.sign(velocity) * (np.abs(velocity) > MOVING)
    for before, now in zip(direction[:-1], direction[1:], strict=True):
        now[now == 0] = before[now == 0]
    return np.stack([simulator.gravity(episode.position), direction, velocity])


def first_guess(model: ServoModel, regression: Regression) -> ServoModel:
    """Where the fit begins.

    The servos of an arm are of one make, so joints without droop get the stiffness of the others,
    or the model's if there is none.
    """
    known = regression.kp[~np.isnan(regression.kp)]
    kp = np.full(ARM.size, np.median(known)) if len(known) else model.kp
    damping = kp * np.maximum(regression.lag, 0.01)
    frictionloss = kp * np.maximum(regression.hysteresis, 0.001)
    return replace(model, kp=kp, damping=damping, frictionloss=frictionloss)


# The check.


def assess(
    simulator: Simulator, episodes: Sequence[Episode], model: ServoModel, found: ServoModel
) -> dict[str, Score]:
    """Scores of the model as it was before and of what was found.

    A free run starts with the episode; "unseen" is one by servos that were fitted without that
    episode. Its reference is the targets. The other predictions start anew in every frame; their
    reference is an arm that stays where it is.
    """
    position, target, used = (
        np.concatenate([getattr(e, name) for e in episodes])
        for name in ("position", "target", "used")
    )
    before = np.concatenate([np.concatenate([e.position[:1], e.position[:-1]]) for e in episodes])

    def score(played: np.ndarray, reference: np.ndarray) -> Score:
        left, whole = (((x - position) ** 2 * used).sum(0) for x in (played, reference))
        with np.errstate(invalid="ignore", divide="ignore"):  # a joint of which nothing is used
            return Score(np.sqrt(left / used.sum(0)), 1 - left / whole)

    def guess(some: Sequence[Episode]) -> ServoModel:
        return first_guess(model, regress(simulator, some))

    free = simulator.play([model, found], episodes)
    ahead = [np.concatenate([simulator.step(s, e) for e in episodes]) for s in (model, found)]
    return {
        "free run, before": score(free[0], target),
        "free run, after": score(free[1], target),
        "free run, unseen": score(cross_validate(simulator, episodes, guess), target),
        "one frame, before": score(ahead[0], before),
        "one frame, after": score(ahead[1], before),
    }


def gaps(found: Fit, regression: Regression) -> list[str]:
    """What the recording does not determine and why, one sentence each."""
    sentences = []
    if still := _names(regression.travel < TRAVEL):
        sentences.append(f"anything about {still}: less than {TRAVEL:g} rad of free motion")
    for name in ("kp", "damping", "frictionloss"):
        low, high = getattr(found.low, name), getattr(found.high, name)
        sentences += [
            f"{name} of {ARM.joints[j]}: the episodes disagree, from {low[j]:.2g} to {high[j]:.2g}"
            for j in np.flatnonzero(high > VAGUE * low)
        ]
    if light := _names(np.isnan(regression.kp)):
        sentences.append(
            f"kp of {light} apart from damping and friction: without droop, only their ratios to "
            "the model's inertia show"
        )
    if prompt := _names(found.low.delay < TIMESTEP):
        sentences.append(f"whether there is any delay of {prompt}")
    return [*sentences, *ALWAYS]


def _names(which: np.ndarray) -> str:
    return ", ".join(ARM.joints[j] for j in np.flatnonzero(which))


# The results.


def _evidence(
    config: IdentifyConfig,
    found: Fit,
    regression: Regression,
    scores: Mapping[str, Score],
    missing: Sequence[str],
) -> dict[str, Any]:
    """What the file tells beside the servos."""
    percentiles = zip(_BOUNDS, (found.low, found.high), strict=True)
    return {
        "data": str(config.data),
        **{
            key: {name: _by_joint(getattr(servos, name)) for name in FITTED}
            for key, servos in percentiles
        },
        "regression": {name: _by_joint(values) for name, values in regression._asdict().items()},
        "rms_rad": {name: _by_joint(score.rms) for name, score in scores.items()},
        "r2": {name: _by_joint(score.r2) for name, score in scores.items()},
        "not_identifiable": list(missing),
    }


def _by_joint(values: np.ndarray) -> dict[str, float | None]:
    rows = zip(ARM.joints, values.tolist(), strict=True)
    return {joint: None if np.isnan(value) else round(value, 6) for joint, value in rows}


def _fit_table(found: Fit) -> "Table":
    columns = {}
    for name, unit in zip(FITTED, ("N m/rad", "N m s/rad", "N m", "s"), strict=True):
        rows = zip(*np.round([getattr(servos, name) for servos in found], 6), strict=True)
        cells = [f"{value:.3g}\n{low:.2g}..{high:.2g}" for value, low, high in rows]
        columns[f"{name}\n{unit}"] = cells
    return _table("Servos, and 90 % of resampled episodes", columns)


def _motion_table(servos: ServoModel, regression: Regression) -> "Table":
    rows = {
        "hysteresis\n+- rad": servos.frictionloss / servos.kp,
        "time constant\ns": servos.damping / servos.kp,
        "regression:\nlag, s": regression.lag,
        "regression:\nkp, N m/rad": regression.kp,
    }
    return _table(
        "What shows whatever the inertia",
        {name: ["-" if np.isnan(v) else f"{v:.3g}" for v in row] for name, row in rows.items()},
    )


def _score_table(scores: Mapping[str, Score]) -> "Table":
    columns = {}
    for name, score in scores.items():
        rows = zip(1000 * score.rms, score.r2, strict=True)
        columns[name.replace(", ", "\n")] = [f"{rms:.1f}\n{r2:.3f}" for rms, r2 in rows]
    return _table("Root mean square error, mrad, above the explained share, R^2", columns)


def _table(title: str, columns: Mapping[str, Sequence[str]]) -> "Table":
    """A table with one row for each joint."""
    from rich.table import Table

    table = Table("", title=title)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(ARM.joints, *columns.values(), strict=True):
        table.add_row(*row)
    return table
