"""envs/open_drawer.py and envs/close_drawer.py; most of it is in tests/opening.py."""

import numpy as np
from opening import OpeningTests, put

from robolearn.envs.close_drawer import CloseDrawer
from robolearn.envs.open_drawer import OpenDrawer


class TestOpenDrawer(OpeningTests):
    task = OpenDrawer
    half = "open the left drawer to 50 percent"
    too_far = "open the left drawer to 110 percent"
    allowed = "20 to 100"

    def test_drawers_slide_towards_the_arm_whatever_their_heading(self, env):
        for seed in range(5):
            env.reset(seed=seed)
            front = env.data.body("furniture").xmat.reshape(3, 3)[:, 0]
            for part, side in enumerate(("left", "right")):
                places = []
                for fraction in (0.0, 1.0):
                    put(env, part, fraction)
                    places.append(env.data.site(f"{side} handle").xpos.copy())
                way = env.model.joint(side).range[1]
                np.testing.assert_allclose(places[1] - places[0], -way * front, atol=1e-9)
                assert places[1][0] < places[0][0] - 0.8 * way


class TestCloseDrawer(OpeningTests):
    task = CloseDrawer
    half = "close the left drawer to 50 percent"
    too_far = "close the left drawer to 60 percent"
    allowed = "0 to 50"
