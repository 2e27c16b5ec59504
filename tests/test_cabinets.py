"""envs/open_cabinet.py and envs/close_cabinet.py; most of it is in tests/opening.py."""

import numpy as np
from opening import OpeningTests, put

from robolearn.envs.close_cabinet import CloseCabinet
from robolearn.envs.open_cabinet import OpenCabinet


class TestOpenCabinet(OpeningTests):
    task = OpenCabinet
    half = "open the left door of the cabinet to 50 percent"
    too_far = "open the left door of the cabinet to 10 percent"
    allowed = "20 to 100"

    def test_doors_swing_outwards_towards_the_arm(self, env):
        for seed in range(5):
            env.reset(seed=seed)
            forward, left, _ = env.data.body("furniture").xmat.reshape(3, 3).T
            for part, (side, sign) in enumerate((("left", 1), ("right", -1))):
                places = []
                for fraction in (0.0, 1.0):
                    put(env, part, fraction)
                    places.append(env.data.site(f"{side} handle").xpos.copy())
                moved = places[1] - places[0]
                assert moved @ forward < -0.03
                assert sign * (moved @ left) > 0.06
                assert np.isclose(moved[2], 0.0)


class TestCloseCabinet(OpeningTests):
    task = CloseCabinet
    half = "close the left door of the cabinet to 50 percent"
    too_far = "close the left door of the cabinet to 60 percent"
    allowed = "0 to 50"
