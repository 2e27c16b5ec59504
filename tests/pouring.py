"""What holds for every task that pours beads out of a cup."""

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs.beads import RADIUS, SIZES
from robolearn.registry import make_env


def still(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last progress."""
    action = env.joints.position(env.data.qpos)
    results = [env.step(action) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4][Info.PROGRESS]


class PouringTests:
    """Subclasses say which task, and how many shares are drawn, usually and in "novel_state"."""

    task: type
    shares: tuple[int, int]

    @pytest.fixture(scope="class")
    @classmethod
    def env(cls):
        return cls.task(obs_type="state")

    def make(self, **options):
        return make_env(f"robolearn/{self.task.__name__}-v0", obs_type="state", **options)

    def test_the_expert_solves_it_and_progress_grows_on_its_way(self):
        env = self.make()
        demonstrations = [demonstrate(env, seed) for seed in range(6)]
        assert sum(infos[-1][Info.IS_SUCCESS] for infos in demonstrations) >= 5
        progress = [np.array([info[Info.PROGRESS] for info in infos]) for infos in demonstrations]
        assert all(((p >= 0.0) & (p <= 1.0)).all() for p in progress)
        thirds = [[part.mean() for part in np.array_split(p, 3)] for p in progress]
        first, second, third = np.mean(thirds, axis=0)
        assert first < second < third - 0.05

    def test_the_expert_copes_with_another_cup(self):
        env = self.make(split="novel_object")
        assert sum(demonstrate(env, seed)[-1][Info.IS_SUCCESS] for seed in range(3)) >= 2

    def test_the_goal_picture_shows_success(self, env):
        for seed in range(6):
            start = env.draw(seed, None)
            env.reset(seed=seed)
            env.data.qpos[:] = env.goal_scene(start).qpos
            mujoco.mj_forward(env.model, env.data)
            assert still(env, steps=20)[0][-1]

    def test_the_top_camera_sees_the_targets_and_every_bead(self, env):
        """Beads of four pixels: their area, in the picture, at the height of the table."""
        view, (height, width) = env.model.camera("top"), env.image_size
        focal = height / 2 / np.tan(np.radians(env.model.cam_fovy[view.id]) / 2)
        outer = max(vessel.outer for vessel in env.targets.values())
        edge = outer * np.array([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
        for seed in range(20):
            env.reset(seed=seed)
            edges = (env.data.mocap_pos[:, None] + edge).reshape(-1, 3)
            eye = env.data.camera("top")
            points = np.concatenate([edges, env.beads.places(env.data.qpos)])
            local = (points - eye.xpos) @ eye.xmat.reshape(3, 3)
            pixels = focal * local[:, :2] / -local[:, 2:]
            assert (np.abs(pixels) < [width / 2, height / 2]).all()
            radius = focal * RADIUS * SIZES[0] / -local[:, 2].min()  # of the farthest
            assert np.pi * radius**2 > 4.0

    def test_novel_shares_are_never_trained_on(self, env):
        novel = self.task(obs_type="state", split="novel_state")
        shares = [{float(e.draw(seed, None).goal[0]) for seed in range(60)} for e in (env, novel)]
        assert not shares[0] & shares[1]
        assert [len(drawn) for drawn in shares] == list(self.shares)
