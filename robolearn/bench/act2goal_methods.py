"""What `robolearn bench-act2goal` measures: methods that are shown their goal, and practices.

| method | what it is |
|---|---|
| `act2goal` | a world model that imagines, and an expert that acts on its features |
| `act2goal-no-hashing` | the same without frames and actions between the chunk's end and the goal |
| `act2goal-uniform`, `act2goal-printed` | the same, spaced otherwise |
| `act2goal-no-imagination` | the same networks, which never learn to imagine |
| `act2goal-features-alone` | the same without a close look at now and goal: as published |
| `act2goal-pictures-alone` | the same without the world model's features |
| `gcbc` | tells one chunk, the mean of what was done |
| `hiql`, `saw` | tell one chunk, as a value of goals advises |
| `susie` | imagines a subgoal, and acts towards its picture |
| `cem` | searches for the chunk whose end looks most like the goal |
| `flow`, `diffusion` | policies of ours that are shown the goal as further pictures |
"""

from typing import Any, Final

from robolearn.policies.configs import DiffusionConfig, FlowConfig
from robolearn.policies.goal_configs import GcbcConfig, HiqlConfig, SawConfig
from robolearn.policies.latent_configs import Act2GoalConfig, CemConfig, SusieConfig

METHODS: Final[dict[str, Any]] = {
    "act2goal": Act2GoalConfig(),
    "act2goal-no-hashing": Act2GoalConfig(spacing="none"),
    "act2goal-uniform": Act2GoalConfig(spacing="uniform"),
    "act2goal-printed": Act2GoalConfig(spacing="printed"),
    "act2goal-no-imagination": Act2GoalConfig(first_stage=0.0, video_weight=0.0),
    "act2goal-features-alone": Act2GoalConfig(sees="imagination"),
    "act2goal-pictures-alone": Act2GoalConfig(sees="pictures"),
    "flow": FlowConfig(goal="pictures"),
    "diffusion": DiffusionConfig(goal="pictures"),
    "gcbc": GcbcConfig(),
    "hiql": HiqlConfig(),
    "saw": SawConfig(),
    "susie": SusieConfig(),
    "cem": CemConfig(),
}
# How to practise: options of `robolearn adapt` that are not as usual.
PRACTICES: Final[dict[str, dict[str, Any]]] = {
    "practice": {},
    "practice-own-goals": {"goal": ("own",)},
    "practice-no-rehearsal": {"rehearsal": 0.0},
    "practice-successes": {"learn_from": "successes"},
    "practice-failures": {"learn_from": "failures"},
    "practice-held-out": {"held_out": 0.1},
    "practice-rank-4": {"rank": 4},
    "practice-rank-64": {"rank": 64},
    "practice-linear-layers": {"weights": "lora-linear"},
    "practice-all-weights": {"weights": "full"},
}
