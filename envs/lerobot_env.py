"""The simulated tasks as environments of LeRobot, so that its own commands train and evaluate here.

    lerobot-eval --env.discover_packages_path=robolearn.envs \
        --env.type=robolearn --env.task=PickPlace-v0 --policy.path=...

Observations get the names that the recorder gives them in a dataset, so a policy that LeRobot has
trained on one finds them here. This is the one module of `envs/` that needs LeRobot.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.processor import PolicyProcessorPipeline, RenameObservationsProcessorStep

from robolearn.registry import make_env

TYPE: Final = "robolearn"
# LeRobot's default name of an entry of the observation -> its name in our datasets
NAMES: Final = {
    "observation.agent_vel": "observation.velocity",
    "observation.agent_effort": "observation.effort",
}


@EnvConfig.register_subclass(TYPE)
@dataclass
class RobolearnEnv(EnvConfig):
    """What can be set on the command line of LeRobot."""

    task: str | None = "PickPlace-v0"
    fps: int = 20
    image_height: int = 48  # pixels, as in the dataset that the policy was trained on
    image_width: int = 84
    paraphrases: str = "held_out"  # wording of the instructions: train, held_out or all
    split: str = "train"  # which objects, scenes and goals
    episode_length: int = 0  # steps at most; 0 takes the task's own limit
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reads the features off the environment.

        Raises:
            ValueError: no such task, split or wording.
        """
        env = self._make()
        spaces: dict[str, Any] = dict(env.observation_space.spaces)  # type: ignore[attr-defined]
        self._add("action", "action", FeatureType.ACTION, env.action_space.shape)
        self._add("agent_pos", "observation.state", FeatureType.STATE, spaces["agent_pos"].shape)
        for camera, picture in spaces["pixels"].spaces.items():
            name = f"observation.images.{camera}"
            self._add(f"pixels/{camera}", name, FeatureType.VISUAL, picture.shape)
        env.close()

    def _add(self, key: str, name: str, kind: FeatureType, shape: tuple[int, ...] | None) -> None:
        self.features[key] = PolicyFeature(type=kind, shape=shape or ())
        self.features_map[key] = name

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """The options of the environment."""
        limit = {"max_episode_steps": self.episode_length} if self.episode_length else {}
        return {
            "image_size": (self.image_height, self.image_width),
            "paraphrases": self.paraphrases,
            "split": self.split,
            "render_mode": "rgb_array",
            **limit,
        }

    def _make(self) -> gymnasium.Env:
        return make_env(f"robolearn/{self.task}", **self.gym_kwargs)

    def create_envs(
        self,
        n_envs: int,
        use_async_envs: bool = False,  # noqa: FBT001, FBT002 (LeRobot's)
    ) -> dict[str, dict[int, VectorEnv]]:
        """`n_envs` copies of the task, as LeRobot wants them."""
        # Not a method of self: workers that are started afresh have to import it.
        one = partial(make_env, f"robolearn/{self.task}", **self.gym_kwargs)
        options: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
        vector: VectorEnv
        if use_async_envs and n_envs > 1:
            vector = AsyncVectorEnv([one] * n_envs, context="forkserver", **options)
        else:
            vector = SyncVectorEnv([one] * n_envs, **options)
        return {TYPE: {0: vector}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        """Renames what LeRobot has no name for; actions stay as they are."""
        rename = RenameObservationsProcessorStep(rename_map=NAMES)
        return PolicyProcessorPipeline(steps=[rename]), PolicyProcessorPipeline(steps=[])
