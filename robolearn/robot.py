"""Opening an arm for the commands that drive one: `deploy`, and `record --robot`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from robolearn.contract import SO101, ArmSpec
from robolearn.episodes import Episode, EpisodeWriter
from robolearn.hardware.intervention import ArmIntervention, Intervention
from robolearn.hardware.limiter import JERK
from robolearn.hardware.safety_types import SafetyConfig
from robolearn.hardware.teleop import Teleop
from robolearn.options import RobotOptions
from robolearn.registry import make_env
from robolearn.rollout import Actor, rollout


def open_robot(options: RobotOptions, *, autonomous: bool, **env_options: Any) -> gymnasium.Env:  # noqa: ANN401
    """The arm's environment, with a human beside it where `options.teleop` names a device.

    Args:
        options: the arm.
        autonomous: whether a policy acts when the human does not.
        env_options: of the environment besides those of `options`, such as `image_size`.

    Raises:
        OSError, ValueError: no arm, no camera, no calibration, no device.
    """
    kind, _, where = options.robot.partition(":")
    if kind not in ROBOTS:
        raise ValueError(f"robot is {options.robot!r}; choose one of so101, lerobot:TYPE")
    steps = round(options.seconds * SO101.control_hz)
    if steps < 1:
        raise ValueError(f"--seconds is {options.seconds:g}; give it more than one control period")
    teleop = open_teleop(options)  # first: a missing pedal shall not leave an arm engaged
    try:
        env = ROBOTS[kind](options, where, **env_options)
        limited = TimeLimit(env, steps)
        if teleop is None:
            return limited
        return ArmIntervention(limited, teleop, autonomous=autonomous)
    except BaseException:
        if teleop is not None:
            teleop.close()
        raise


def open_simulated(
    options: RobotOptions,
    env: str,
    *,
    viewer: bool = False,
    **env_options: Any,  # noqa: ANN401
) -> gymnasium.Env:
    """A simulated task in real time, for a human to drive.

    Args:
        options: name the device.
        env: environment id.
        viewer: shows it in a window.
        env_options: of the environment.

    Raises:
        OSError, ValueError: an unknown task, no device, no screen for the viewer.
    """
    from robolearn.envs.live import Live  # an arm does without the simulator

    task = make_env(env, **env_options)
    arm: Any = task.unwrapped
    teleop = open_teleop(options, arm.arm)
    assert teleop is not None  # the caller has checked that there is a device
    try:
        return Intervention(Live(task, viewer=viewer), teleop, autonomous=False)
    except BaseException:
        teleop.close()
        raise


def _safety(options: RobotOptions) -> SafetyConfig:
    return SafetyConfig(
        velocity=options.speed,
        acceleration=options.acceleration,
        jerk=JERK * options.acceleration,
        on_exit=options.on_exit,
    )


def _so101(options: RobotOptions, kind: str, **env_options: Any) -> gymnasium.Env:  # noqa: ANN401
    del kind
    return make_env(
        "robolearn/SO101-v0",
        port=options.port,
        calibration=options.calibration,
        instruction=options.instruction,
        realtime=True,
        safety=_safety(options),
        blackbox=options.blackbox,
        estop=options.estop,
        max_episode_steps=-1,  # `open_robot` limits it
        **env_options,
    )


def _lerobot(options: RobotOptions, kind: str, **env_options: Any) -> gymnasium.Env:  # noqa: ANN401
    from robolearn.hardware.lerobot_robot import open_lerobot

    if options.teleop != "none" or options.estop is not None:
        raise ValueError("--teleop and --estop need an arm that robolearn drives: --robot so101")
    if options.on_exit == "hold":
        raise ValueError("LeRobot lets go of an arm when it is closed; take --on-exit park or limp")
    return open_lerobot(
        kind,
        port=options.port,
        calibration=options.calibration,
        instruction=options.instruction,
        safety=_safety(options),
        **env_options,
    )


ROBOTS: Final = {"so101": _so101, "lerobot": _lerobot}


def as_vector(env: gymnasium.Env) -> SyncVectorEnv:
    """One environment as `rollout` wants it."""
    return SyncVectorEnv([lambda: env], copy=False, autoreset_mode=AutoresetMode.DISABLED)


def kept_episodes(
    env: gymnasium.Env, vector: SyncVectorEnv, actor: Actor, seeds: Iterable[int]
) -> Iterator[Episode]:
    """Runs every seed, again as long as the human wants; ends with a fault, which is looked at.

    Args:
        env: the arm, as `open_robot` opened it.
        vector: the same, as `as_vector` has it.
        actor: acts when the human does not.
        seeds: may be endless.
    """
    for seed in seeds:
        (episode,) = rollout(vector, actor, [seed])
        while isinstance(env, Intervention) and env.rerecord:
            (episode,) = rollout(vector, actor, [seed])
        yield episode
        if episode.fault:
            return


def open_writer(folder: Path, env: gymnasium.Env) -> EpisodeWriter:
    """A dataset for what an arm does.

    Raises:
        DatasetError: the folder cannot be written or holds something else.
    """
    arm: Any = env.unwrapped
    cameras = dict.fromkeys(arm.active_cameras, arm.image_size)
    return EpisodeWriter(folder, arm=arm.arm, fps=arm.arm.control_hz, cameras=cameras)


def open_teleop(options: RobotOptions, arm: ArmSpec = SO101) -> Teleop | None:
    """The device that `options.teleop` names, for this arm.

    Raises:
        OSError, ValueError: an unknown device, or one that is not there.
    """
    kind, _, where = options.teleop.partition(":")
    if kind not in TELEOPS:
        known = ", ".join(TELEOPS)
        raise ValueError(f"teleop is {options.teleop!r}; choose one of {known}")
    return TELEOPS[kind](options, where, arm)


def _none(options: RobotOptions, where: str, arm: ArmSpec) -> None:
    del options, where, arm


def _keyboard(options: RobotOptions, where: str, arm: ArmSpec) -> Teleop:
    from robolearn.hardware.keyboard import KeyboardTeleop

    del options, where
    return KeyboardTeleop(arm=arm)


def _gamepad(options: RobotOptions, where: str, arm: ArmSpec) -> Teleop:
    from robolearn.hardware.gamepad import GamepadTeleop

    del options, where
    return GamepadTeleop(arm=arm)


def _leader(options: RobotOptions, where: str, arm: ArmSpec) -> Teleop:
    from robolearn.hardware.bus import Bus
    from robolearn.hardware.calibration import Calibration
    from robolearn.hardware.keyboard import KeyboardTeleop
    from robolearn.hardware.leader import Leader

    if arm != SO101:
        raise ValueError(f"a leader arm drives one SO-101, not {arm.name}; take --teleop keyboard")
    if not where or options.leader_calibration is None:
        raise ValueError(
            "a leader arm needs its port and its calibration: "
            "--teleop leader:/dev/ttyACM1 --leader-calibration FILE"
        )
    calibration = Calibration.load(options.leader_calibration, SO101)
    bus = Bus(where, calibration.ids)
    return Leader(bus, calibration, pedal=KeyboardTeleop())


TELEOPS = {"none": _none, "keyboard": _keyboard, "gamepad": _gamepad, "leader": _leader}
