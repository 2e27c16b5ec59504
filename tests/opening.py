"""What holds for every task that opens or closes a part of some furniture."""

from itertools import product

import mujoco
import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.envs import opening
from robolearn.envs.furniture import SIDES
from robolearn.envs.opening import AT_REST, TOLERANCE
from robolearn.envs.opening_expert import TIPS_BELOW, HandlePath
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream


def part_of(env):
    """The number of the named part."""
    return int(env.goal[opening.PART].argmax())


def put(env, part, fraction, speed=0.0):
    """Opens a part so far, moving at a speed in its way per second."""
    joint = env.data.joint(SIDES[part])
    way = env.model.joint(SIDES[part]).range[1]
    joint.qpos[:], joint.qvel[:] = fraction * way, speed * way
    mujoco.mj_forward(env.model, env.data)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def demonstrate(env, seed):
    """The expert's episode: progress and contacts of the named part; whether it was solved."""
    env.reset(seed=seed)
    part, progress, touch = part_of(env.unwrapped), [], []
    for action in env.unwrapped.expert(stream(seed, "expert")):
        *_, terminated, truncated, info = env.step(action)
        progress.append(info[Info.PROGRESS])
        touch.append(env.unwrapped.data.sensordata[opening.TOUCH][part])
        if terminated or truncated:
            return np.array(progress), np.array(touch), terminated
    raise AssertionError("an expert goes on for ever")


class OpeningTests:
    """Subclasses say which task, an instruction for the left part at 50 %, and a bad one."""

    task: type
    half: str
    too_far: str
    allowed: str

    @pytest.fixture(scope="class")
    @classmethod
    def env(cls):
        return cls.task(obs_type="state")

    def begin(self, env, seed=0):
        env.reset(seed=seed, options={"instruction": self.half})

    def test_the_expert_grasps_brings_and_releases(self):
        env = make_env(f"robolearn/{self.task.__name__}-v0", obs_type="state")
        episodes = [demonstrate(env, seed) for seed in range(10)]
        assert sum(solved for *_, solved in episodes) >= 9
        thirds = np.mean([[p.mean() for p in np.array_split(e[0], 3)] for e in episodes], axis=0)
        assert thirds[0] + 0.05 < thirds[1] < thirds[2] - 0.05
        for progress, touch, solved in episodes:
            assert ((progress >= 0.0) & (progress <= 1.0)).all()
            assert (progress[touch > 0] < 1.0).all()  # what is held does not count
            assert touch[0] == 0
            assert touch.any()
            assert not solved or touch[-1] == 0

    @pytest.mark.parametrize("part", [0, 1])
    def test_the_expert_knows_the_path_of_a_handle(self, env, part):
        """Where the handle will be and how it will be turned, foreseen from where it is now."""
        self.begin(env)
        path, site = HandlePath(env, part, turned=1), env.data.site(f"{SIDES[part]} handle")
        ways = []
        for fraction in np.linspace(0.0, 1.0, 21):
            put(env, part, fraction)
            place, heading = path.grasp(fraction)
            np.testing.assert_allclose(place, site.xpos - [0.0, 0.0, TIPS_BELOW], atol=1e-9)
            across = site.xmat.reshape(3, 3)[:2, 1]
            parallel = across @ [np.cos(heading), np.sin(heading)]
            assert abs(parallel) == pytest.approx(1.0)
            assert path.is_at(fraction)
            ways.append(site.xpos.copy())
        length = np.linalg.norm(np.diff(ways, axis=0), axis=1).sum()
        assert length == pytest.approx(path.length, rel=1e-3)
        assert not path.is_at(0.7)

    def test_the_expert_copes_with_another_object(self):
        name = f"robolearn/{self.task.__name__}-v0"
        env = make_env(name, obs_type="state", split="novel_object")
        assert sum(demonstrate(env, seed)[2] for seed in range(3)) >= 2

    def test_a_part_at_its_goal_succeeds_after_the_hold_time(self, env):
        self.begin(env)
        put(env, 0, 0.5)
        ended, info = hold(env, steps=env.hold_steps)
        assert ended == [False] * 4 + [True]
        assert info[Info.PROGRESS] == 1.0

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_the_tolerance_has_an_edge(self, env, sign):
        for error, inside in [(0.95 * TOLERANCE, True), (1.05 * TOLERANCE, False)]:
            self.begin(env)
            put(env, 0, 0.5 + sign * error)
            ended, info = hold(env, steps=8)
            assert any(ended) == inside
            assert (info[Info.PROGRESS] == 1.0) == inside

    def test_the_other_part_at_the_goal_fails(self, env):
        self.begin(env)
        put(env, 1, 0.5)
        assert not any(hold(env, steps=8)[0])

    def test_moving_through_the_goal_fails(self, env):
        self.begin(env)
        put(env, 0, 0.3, speed=0.3)
        dof, way = env.model.joint(SIDES[0]).dofadr[0], env.model.joint(SIDES[0]).range[1]
        friction, damping = env.model.dof_frictionloss[dof], env.model.dof_damping[dof]
        env.data.qfrc_applied[dof] = friction + damping * 0.3 * way
        inside, ended = 0, []
        while env.fraction(0) < 0.65:
            ended += hold(env, steps=1)[0]
            inside += abs(env.fraction(0) - 0.5) < TOLERANCE
        assert inside > env.hold_steps
        assert not any(ended)

    def test_each_condition_of_success_counts(self, env):
        """From a state that succeeds, each row but the first spoils one condition."""
        self.begin(env)
        put(env, 0, 0.5)
        hold(env, steps=2)
        state = State(*(np.repeat(part, 5, axis=0) for part in env.state))
        goal = np.repeat(env.goal[None], 5, axis=0)
        joints = [env.model.joint(side) for side in SIDES]
        way = joints[0].range[1]
        state.sensordata[1, opening.TOUCH.start] = 1  # the gripper still touches it
        state.qvel[2, joints[0].dofadr[0]] = 1.1 * AT_REST * way
        state.qpos[3, joints[1].qposadr[0]] += 1.1 * TOLERANCE * way
        state.qpos[4, joints[0].qposadr[0]] -= 1.1 * TOLERANCE * way
        success, progress = env.evaluate(state, goal)
        assert success.tolist() == [True, False, False, False, False]
        assert progress[0] == 1.0
        assert (progress[1:] < 1.0).all()

    def test_evaluation_of_a_batch_is_that_of_its_rows(self, env):
        states, goals = [], []
        for seed in range(6):
            env.reset(seed=seed)
            if seed % 2:
                put(env, part_of(env), env.goal[opening.GOAL])
            hold(env, steps=2)
            states.append([part[0].copy() for part in env.state])
            goals.append(env.goal)
        batch, goals = State(*map(np.stack, zip(*states, strict=True))), np.stack(goals)
        success, progress = env.evaluate(batch, goals)
        assert success.tolist() == [False, True] * 3
        for i in range(6):
            row = State(*(part[i : i + 1] for part in batch)), goals[i : i + 1]
            alone = env.evaluate(*row)
            assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
            np.testing.assert_array_equal(
                env.environment_state(batch, goals)[i], env.environment_state(*row)[0]
            )

    def test_nothing_is_solved_overlaps_or_moves_at_the_start(self, env):
        model, data = env.model, env.data
        body = [model.body(name).id for name in ("furniture", *SIDES)]
        things = [g for g in range(model.ngeom) if model.geom_bodyid[g] in body]
        arm = [g for g in range(model.ngeom) if model.geom_contype[g] == 2]
        for seed in range(30):
            env.reset(seed=seed)
            gaps = [
                mujoco.mj_geomDistance(model, data, *pair, 0.05, None)
                for pair in product(things, arm)
            ]
            assert min(gaps) > 0.003, f"seed {seed}"
            ended, _ = hold(env, steps=6)
            assert not any(ended)
            now = [data.joint(side).qpos[0] / model.joint(side).range[1] for side in SIDES]
            np.testing.assert_allclose(now, env.goal[opening.STARTED], atol=0.002)

    def test_a_part_stays_where_it_is_left(self, env):
        self.begin(env)
        put(env, 0, 0.3, speed=0.5)
        hold(env, steps=10)
        after = env.fraction(0)
        assert 0.3 < after < 0.4
        hold(env, steps=20)
        assert env.fraction(0) == pytest.approx(after, abs=0.002)

    def test_the_goal_picture_shows_success(self, env):
        for seed in range(5):
            env.reset(seed=seed)
            env._place(env.data, env.goal_scene(env.draw(seed, None)))
            assert env.evaluate(env.state, env.goal[None])[0].all()

    def test_what_can_be_asked_for(self, env):
        with pytest.raises(ValueError, match=f"the opening in percent is .*; give {self.allowed}"):
            env.draw(0, self.too_far)
        other = self.half.replace("50", "33.5").replace("left", "right")
        asked, drawn = env.draw(3, other), env.draw(3, None)
        assert asked.goal[opening.ASKED].tolist() == [pytest.approx(0.335), 0.0, 1.0]
        np.testing.assert_array_equal(asked.qpos, drawn.qpos)
        np.testing.assert_array_equal(asked.mocap_pos, drawn.mocap_pos)

    def test_novel_goals_are_new(self, env):
        novel = self.task(obs_type="state", split="novel_state")
        goals = [{e.draw(s, None).goal[opening.GOAL] for s in range(60)} for e in (env, novel)]
        assert len(goals[0]) >= 3
        assert len(goals[1]) >= 2
        assert not goals[0] & goals[1]

    def test_the_top_camera_sees_the_handles(self, env):
        height, width = env.image_size
        for seed, fraction in product(range(15), (0.0, 1.0)):
            env.reset(seed=seed)
            for part in range(len(SIDES)):
                put(env, part, fraction)
            view = env.data.camera("top")
            for side in SIDES:
                place = (env.data.site(f"{side} handle").xpos - view.xpos) @ view.xmat.reshape(3, 3)
                half = np.radians(env.model.cam_fovy[env.model.camera("top").id]) / 2
                focal = height / 2 / np.tan(half) / -place[2]  # pixels per metre
                assert (np.abs(place[:2] * focal) < np.array([width, height]) / 2 - 2).all()
                assert 2 * env.model.site(f"{side} handle").size[0] * focal >= 4.0
