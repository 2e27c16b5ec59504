"""Why an episode failed, in one of a few groups, for any task: from contacts and from progress.

| group | what happened |
|---|---|
| fault | a fault ended the episode |
| near the goal | time ran out with nearly everything done |
| wrong thing | something was handled that the instruction does not name, and not what it names |
| collision | a table, furniture or an arm stopped an arm, and nothing was held and lost |
| never touched | no finger touched what it is about |
| never grasped | it was touched, but never held, in a task that takes holding it |
| dropped, let go | it was held, and at the end no more: a loose thing, or a handle |
| undone | much progress was made, and lost again |
| no progress | nothing was ever gained |
| out of time | anything else: it was still under way |

What an episode is about are the bodies that `Task.movable` names, or else all that can move. An
environment of others tells only its progress; the groups that need contacts stay empty there.
"""

from typing import Any, Final

import gymnasium
import numpy as np

from robolearn.contract import Info
from robolearn.envs.contacts import CLOTH, Arms, Hands
from robolearn.envs.task import Task

NEAR: Final = 0.8  # progress from which on an episode was nearly done
LOST: Final = 0.2  # progress that was made and lost again counts as undone
GAINED: Final = 0.05  # less progress than this is none
HARD: Final = 10.0  # N; experts stay below 1 but for single steps, an arm that is stopped pushes 25
STOPPED: Final = 0.5  # s in a row that an arm presses hard in a collision
GRASP: Final = 3  # control steps in a row that make a grasp; less is a bump
FAILURES: Final = (
    *("fault", "near the goal", "wrong thing", "collision", "never touched", "never grasped"),
    *("dropped", "let go", "undone", "no progress", "out of time"),
)

UNHANDLED: Final = ("", "never touched", "never grasped")  # for which a collision is the reason


class Witness(gymnasium.Wrapper):
    """Tells the group of an episode that has failed, `info["failure"]`, when it ends; "" before.

    Args:
        env: any environment that keeps the contract.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        task = env.unwrapped
        self._sight = Sight(task) if isinstance(task, Task) else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._progress = [float(info[Info.PROGRESS])]
        if self._sight:
            self._sight.begin()
        return observation, {**info, Info.FAILURE: ""}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """One control period, and a look at it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._progress.append(float(info[Info.PROGRESS]))
        if self._sight:
            self._sight.look()
        failed = (terminated or truncated) and not info[Info.IS_SUCCESS]
        info = {**info, Info.FAILURE: self._group(info) if failed else ""}
        return observation, float(reward), terminated, truncated, info

    def _group(self, info: dict[str, Any]) -> str:
        first, last, best = self._progress[0], self._progress[-1], max(self._progress)
        if info[Info.FAULT]:
            return "fault"
        if last >= NEAR:
            return "near the goal"
        if self._sight and (group := self._sight.group()):
            return group
        if best - last > LOST:
            return "undone"
        return "no progress" if best - first < GAINED else "out of time"


class Sight:
    """What the hands have touched and held in an episode, and what an arm ran into.

    Args:
        task: the simulated task.
    """

    def __init__(self, task: Any) -> None:  # noqa: ANN401 (a ManipulationEnv)
        self._task, self._hands, self._arms = task, Hands(task), Arms(task)
        model = task.model
        moves = model.body_dofnum[model.body_weldid] > 0  # unlike what the task itself moves
        bodies = np.flatnonzero(moves).tolist()
        self._things = {
            body for body in bodies if int(model.body_rootid[body]) not in self._arms.roots
        }
        self._things |= {CLOTH} if model.nflex else set()

    def begin(self) -> None:
        """Looks at what the episode is about."""
        model = self._task.model
        named = self._task.movable(self._task.goal)
        self._loose = bool(named)
        self._about = {int(model.jnt_bodyid[model.joint(name).id]) for name in named}
        self._about = self._about or self._things
        self._touched: set[int] = set()
        self._grasped: set[int] = set()
        self._steps: dict[int, int] = {}  # in a row that a thing has been held
        self._pressing = 0  # steps in a row that an arm has pressed hard
        self._collided = False
        self.look()

    def look(self) -> None:
        """Looks at the present step."""
        self._touched |= self._hands.touched() & self._things
        held = self._hands.held() & self._things
        self._steps = {body: self._steps.get(body, 0) + 1 for body in held}
        self._grasped |= {body for body, steps in self._steps.items() if steps >= GRASP}
        self._pressing = self._pressing + 1 if self._arms.pressure() >= HARD else 0
        self._collided |= self._pressing >= STOPPED * self._task.arm.control_hz

    def group(self) -> str:
        """What the contacts tell of a failure; "" if they tell nothing."""
        found = self._handling()
        return "collision" if self._collided and found in UNHANDLED else found

    def _handling(self) -> str:
        grasps = self._task.grasps
        handled = self._grasped if grasps else self._touched
        if not self._about:
            return ""
        if handled and not handled & self._about:
            return "wrong thing"
        if not self._touched & self._about:
            return "never touched"
        if not grasps:
            return ""
        if not self._grasped & self._about:
            return "never grasped"
        if not self._about & self._steps.keys():
            return "dropped" if self._loose else "let go"
        return ""


def witnessed(env: gymnasium.Env) -> gymnasium.Env:
    """The same environment with a witness."""
    return Witness(env)
