"""Environments as others write them; importing the module registers them."""

import gymnasium
import numpy as np
from gymnasium import spaces

STEPS = 30


class Slider(gymnasium.Env):
    """Push two sliders to the right end, in steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.observation_space = spaces.Dict({"where": spaces.Box(-2.0, 2.0, (2,), np.float64)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where = self.np_random.uniform(-0.5, 0.5, 2)
        return {"where": self.where.copy()}, {}

    def step(self, action):
        assert action.dtype == np.float64
        self.where = np.clip(self.where + 0.2 * action, -1.0, 1.0)
        done = bool((self.where > 0.95).all())
        return {"where": self.where.copy()}, -1.0, False, False, {"success": float(done)}

    def render(self):
        picture = np.zeros((24, 40, 3), np.uint8)
        for row, place in enumerate(self.where):
            picture[8 * row + 4, int(19.5 + 18 * place)] = 255
        print("a word on standard output")  # as packages do
        return picture


class Discrete(Slider):
    """Takes what no policy here gives."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.action_space = spaces.Discrete(3)


class Crash(Slider):
    """Breaks."""

    def step(self, action):
        raise ArithmeticError("the simulator broke")


gymnasium.register("Slider-v0", entry_point=Slider, max_episode_steps=STEPS)
gymnasium.register("Discrete-v0", entry_point=Discrete, max_episode_steps=STEPS)
gymnasium.register("Crash-v0", entry_point=Crash, max_episode_steps=STEPS)
