"""Why episodes failed: played out in the simulator by hands that do the wrong thing."""

import gymnasium
import numpy as np
import pytest
import toy

from robolearn.contract import Info
from robolearn.envs import scene
from robolearn.envs.failures import FAILURES, Witness, witnessed
from robolearn.registry import make_env


def ending(env, seed, actions):
    """The info of the last step of an episode."""
    env.reset(seed=seed)
    for action in actions:
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return info
        assert info[Info.FAILURE] == ""
    raise AssertionError("the episode does not end")


def open_task(name, steps, **options):
    env_id = f"robolearn/{name}-v0"
    return witnessed(make_env(env_id, obs_type="state", max_episode_steps=steps, **options))


def staying(env):
    env.reset(seed=0)
    position = np.array(env.unwrapped.joints.position(env.unwrapped.data.qpos), np.float32)
    while True:
        yield position


def expert(env, seed, until=10_000, then=None):
    """The expert's actions for so many steps, then its last one again, perhaps changed."""
    script = env.unwrapped.expert(np.random.default_rng(seed))
    action = None
    for _ in range(until):
        action = next(script)
        yield action
    while True:
        yield then(action) if then else action


@pytest.mark.parametrize("name", ["PickPlace", "OpenDrawer", "Push", "Fold", "Pour"])
def test_an_arm_that_stands_still_never_touched_anything(name):
    env = open_task(name, 8)
    assert ending(env, 0, staying(env))[Info.FAILURE] == "never touched"


def test_without_things_only_progress_tells():
    env = open_task("Reach", 8)
    assert ending(env, 0, staying(env))[Info.FAILURE] == "no progress"


def grasp_steps(env, seed):
    """How many steps the expert takes until it has lifted what it shall."""
    env.reset(seed=seed)
    for step, action in enumerate(expert(env, seed)):
        env.step(action)
        task = env.unwrapped
        joint = task.model.joint(task.movable(task.goal)[0])
        if task.data.qpos[int(joint.qposadr[0]) + 2] > 0.05:
            return step + 1
    raise AssertionError


def opened(action):
    return np.r_[action[:-1], np.float32(1.0)]


def leaning(env):
    """Forward and down, on and on."""
    env.reset(seed=0)
    position = np.array(env.unwrapped.joints.position(env.unwrapped.data.qpos), np.float32)
    while True:
        position[1] += 0.03
        yield np.minimum(position, env.unwrapped.arm.high)


@pytest.mark.parametrize("name", ["PickPlace", "Reach"])
def test_an_arm_that_leans_on_the_table_collided(name):
    env = open_task(name, 70)
    assert ending(env, 0, leaning(env))[Info.FAILURE] == "collision"


@pytest.mark.parametrize("name", ["PickPlace", "Handover", "Push", "EdgeGrasp", "CloseDrawer"])
def test_experts_collide_with_nothing(name):
    env = open_task(name, 600)
    for seed in range(2):
        ending(env, seed, expert(env, seed))
        assert not env._sight._collided


def test_what_is_let_go_half_way_was_dropped():
    seed = 1
    held = grasp_steps(open_task("PickPlace", 200), seed)
    env = open_task("PickPlace", held + 30)
    assert ending(env, seed, expert(env, seed, held, opened))[Info.FAILURE] == "dropped"


def test_what_is_still_in_the_hand_was_under_way():
    seed = 1
    held = grasp_steps(open_task("PickPlace", 200), seed)
    env = open_task("PickPlace", held + 20)
    assert ending(env, seed, expert(env, seed, held))[Info.FAILURE] == "out of time"


def test_a_hand_that_never_closes_never_grasps():
    seed = 1
    held = grasp_steps(open_task("PickPlace", 200), seed)
    env = open_task("PickPlace", held)
    actions = (opened(action) for action in expert(env, seed))
    assert ending(env, seed, actions)[Info.FAILURE] in ("never grasped", "never touched")


def test_a_handle_that_is_let_go_of():
    env = open_task("OpenDrawer", 200)
    env.reset(seed=2)
    sight, actions, steps = env._sight, expert(env, 2), 0
    while not sight._grasped & sight._about:
        env.step(next(actions))
        steps += 1
    env = open_task("OpenDrawer", steps + 25)
    assert ending(env, 2, expert(env, 2, steps, opened))[Info.FAILURE] == "let go"


def test_the_wrong_thing_is_told_from_the_right_one():
    """The expert goes for the cube that the instruction names; then another one is meant."""
    seed = 1
    held = grasp_steps(open_task("PickPlace", 200), seed)
    env = open_task("PickPlace", held + 5)
    env.reset(seed=seed)
    task = env.unwrapped
    asked = task.phrases.parse(task.task_description)
    other = next(c for c in range(3) if c != asked[0])
    script = task.expert(np.random.default_rng(seed))
    task.goal[0] += other - asked[0]  # what the task judges by, and what the witness looks at
    env._sight.begin()
    for action in script:
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    assert info[Info.FAILURE] == "wrong thing"


def test_nearly_done_is_near_the_goal():
    """The cube lies in its bin, but another one was moved away, which the task does not forgive."""
    env = open_task("PickPlace", 6)
    env.reset(seed=0)
    task = env.unwrapped
    goal = task.goal_scene(task._start)
    task.data.qpos[:] = goal.qpos
    for colour in ("red", "green", "blue"):
        if f"{colour} cube" not in task.movable(task.goal):
            pose = scene.upright((0.3, 0.0 if colour == "red" else 0.05), 0.0)
            scene.put(task.model, task.data, f"{colour} cube", pose)
    env._sight.begin()
    position = np.array(task.joints.position(task.data.qpos), np.float32)
    truncated = False
    while not truncated:
        *_, terminated, truncated, info = env.step(position)
        assert not terminated
    assert info[Info.FAILURE] == "near the goal"


def test_success_is_no_failure():
    env = open_task("PickPlace", 200)
    info = ending(env, 1, expert(env, 1))
    assert info[Info.IS_SUCCESS]
    assert info[Info.FAILURE] == ""


class Course(gymnasium.Wrapper):
    """Plays a course of progress, and then truncates, perhaps with a fault."""

    def __init__(self, course, fault=""):
        super().__init__(toy.Toy())
        self.course, self.fault = course, fault

    def reset(self, **options):
        self.left = list(self.course)
        observation, info = super().reset(**options)
        return observation, info | {Info.PROGRESS: self.left.pop(0)}

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        info |= {Info.PROGRESS: self.left.pop(0), Info.FAULT: "", Info.IS_SUCCESS: False}
        if not self.left:
            info |= {Info.FAULT: self.fault}
        return observation, reward, False, not self.left, info


@pytest.mark.parametrize(
    ("course", "fault", "group"),
    [
        ([0.2, 0.5, 0.6], "", "out of time"),
        ([0.2, 0.21, 0.2], "", "no progress"),
        ([0.1, 0.7, 0.3], "", "undone"),
        ([0.1, 0.7, 0.85], "", "near the goal"),
        ([0.1, 0.7, 0.85], "overheated", "fault"),
    ],
)
def test_progress_and_faults_tell_in_environments_of_others(course, fault, group):
    env = Witness(Course(course, fault))
    env.reset(seed=1)
    while not (step := env.step(np.zeros(3, np.float32)))[3]:
        assert step[4][Info.FAILURE] == ""
    assert step[4][Info.FAILURE] == group
    assert group in FAILURES
