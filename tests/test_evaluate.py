"""Evaluation: counts, order and honesty."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import toy

from robolearn import checkpoint, filming
from robolearn import evaluate as evaluation
from robolearn.checkpoint import CheckpointError
from robolearn.config import config_hash, load_config
from robolearn.eval_folders import default_folder
from robolearn.evaluate import evaluate, evaluated, main, shuffled_instructions
from robolearn.filming import _groups_in_turn
from robolearn.options import EvalConfig
from robolearn.results import EpisodeResult, Result
from robolearn.rollout import rollout
from robolearn.stats import wilson
from robolearn.workers import make_vector


def config(run, out, **changes):
    settings = {"env": toy.ENV_ID, "episodes": 5, "replan_every": 2, "videos": 0, "workers": 0}
    return EvalConfig(policy=str(run), out=out, **{**settings, **changes})


@pytest.fixture
def skilled(monkeypatch):
    """Loading a checkpoint gives the toy's expert, who fails at every fifth seed."""

    class Expert:
        def __init__(self, env):
            self.env, self.told = env.envs[0].unwrapped, []

        def reset(self, slot, seed, instruction):
            self.script = self.env.expert(np.random.default_rng(seed))
            self.told.append((seed, instruction))

        def act(self, observation):
            return next(self.script)[None]

        def latency(self, slot):
            return [0.001, 0.003]

        def notes(self, slot):
            return {}

    actors = []

    def open_agent(options, env):
        actors.append(Expert(env))
        return actors[-1]

    monkeypatch.setattr(evaluation, "open_agent", open_agent)
    return actors


def same(result):
    """What must not depend on the workers."""
    times = {"latency_p50_ms"}
    return [{k: v for k, v in e.items() if k not in times} for e in result["episodes"]]


def test_success_is_counted(tmp_path, toy_run, skilled):
    result = evaluate(config(toy_run, tmp_path / "e", episodes=11, seed=3))
    assert [e["seed"] for e in result["episodes"]] == list(range(3, 14))
    assert [e["seed"] for e in result["episodes"] if not e["success"]] == [5, 10]
    assert (result["n"], result["successes"], result["success"]) == (11, 9, 9 / 11)
    assert (result["success_low"], result["success_high"]) == wilson(9, 11)
    assert result["seeds"] == [3, 13]
    assert result["latency_ms"] == {"p50": pytest.approx(2.0), "p99": pytest.approx(3.0)}
    for episode in result["episodes"]:
        assert episode["latency_p50_ms"] == pytest.approx(2.0)
        assert (episode["length"] == toy.STEPS) == (not episode["success"])
        assert (episode["progress"] == 1.0) == episode["success"]
        assert episode["instruction"] == episode["agent_instruction"]


def test_the_result_has_every_key_and_is_what_was_returned(tmp_path, toy_run):
    settings = config(toy_run, tmp_path / "e")
    result = evaluate(settings)
    stored = json.loads((tmp_path / "e" / "result.json").read_text())
    assert stored == result
    assert stored.keys() == Result.__annotations__.keys()
    assert all(e.keys() == EpisodeResult.__annotations__.keys() for e in stored["episodes"])
    assert result["env_id"] == toy.ENV_ID
    resolved = replace(settings, policy=str(checkpoint.resolve(toy_run)))
    assert result["policy"] == resolved.policy
    assert result["config_hash"] == config_hash(resolved)
    assert (result["instructions"], result["held_out_instructions"]) == ("matched", True)
    assert {"robolearn", "torch", "mujoco", "python"} <= result["versions"].keys()
    assert load_config(EvalConfig, tmp_path / "e", "eval.json") == resolved


def test_workers_do_not_change_the_result(tmp_path, toy_run):
    alone = evaluate(config(toy_run, tmp_path / "alone"))
    together = evaluate(config(toy_run, tmp_path / "together", workers=2))
    assert same(together) == same(alone)
    assert [e["seed"] for e in together["episodes"]] == list(range(5))


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_instructions_are_those_of_other_episodes(toy_run, seed):
    seeds = range(seed, seed + 7)
    matched = {}
    env = make_vector(toy.ENV_ID, 1)
    for k in seeds:
        matched[k] = env.reset(seed=k)[1]["task"][0]
    settings = config(toy_run, None, shuffle_instructions=True, seed=seed)
    told = shuffled_instructions(settings, seeds)
    assert sorted(told) == list(seeds)
    assert sorted(told.values()) == sorted(matched.values())
    assert told == shuffled_instructions(settings, seeds)


def test_no_episode_keeps_its_own_instruction(toy_run, monkeypatch):
    """With a text of its own for every seed it shows."""
    original = toy.Toy.reset

    def reset(self, *, seed=None, options=None):
        return original(self, seed=seed, options={"instruction": f"go to the red dot {seed}"})

    monkeypatch.setattr(toy.Toy, "reset", reset)
    for seed in range(20):
        settings = config(toy_run, None, shuffle_instructions=True, seed=seed)
        told = shuffled_instructions(settings, range(3))
        assert sorted(told.values()) == [f"go to the red dot {k}" for k in range(3)]
        assert all(text != f"go to the red dot {k}" for k, text in told.items())


def test_the_agent_is_really_told_the_other_instruction(tmp_path, toy_run, skilled):
    settings = config(toy_run, tmp_path / "e", episodes=8, shuffle_instructions=True)
    result = evaluate(settings)
    told = shuffled_instructions(settings, range(8))
    assert dict(skilled[0].told) == told
    assert result["instructions"] == "shuffled"
    assert {e["seed"]: e["agent_instruction"] for e in result["episodes"]} == told
    # The task still judges by its own.
    matched = evaluate(config(toy_run, tmp_path / "m", episodes=8))
    own = {e["seed"]: e["instruction"] for e in matched["episodes"]}
    assert {e["seed"]: e["instruction"] for e in result["episodes"]} == own
    assert own != told


def test_one_goal_may_be_asked_for_in_all_episodes(tmp_path, toy_run, skilled):
    goal = toy.INSTRUCTIONS[1]
    result = evaluate(config(toy_run, tmp_path / "e", instruction=goal, videos=2))
    assert {episode["instruction"] for episode in result["episodes"]} == {goal}
    assert {told for _, told in skilled[0].told} == {goal}
    assert sum(episode["video"] is not None for episode in result["episodes"]) == 2
    with pytest.raises(ValueError, match="leaves nothing to shuffle"):
        evaluate(config(toy_run, None, instruction=goal, shuffle_instructions=True))
    folder = default_folder(config(toy_run, None, instruction="go up, now"))
    assert folder.name.startswith("eval-go-up-now")


def test_what_makes_other_episodes_stands_in_the_folder_s_name(toy_run):
    plain = config(toy_run, None, replan_every=4)
    other = replace(plain, env="robolearn/Lift-v0", split="novel_state")
    assert default_folder(other) == toy_run / "eval-Lift-v0-novel_state"
    assert default_folder(replace(other, replan_every=3, seed=9)).name == (
        "eval-replan3-Lift-v0-novel_state-seed9"
    )
    assert (
        default_folder(replace(other, env="", split="train", paraphrases="all")).name == "eval-all"
    )


def test_the_task_is_the_one_that_the_policy_was_trained_on(demo_folder, tmp_path):
    run = demo_folder / "runs/demo"
    settings = EvalConfig(policy=str(run), out=tmp_path, episodes=1, videos=0, workers=0)
    assert evaluate(settings)["env_id"] == "robolearn/PickPlace-v0"


def test_a_policy_that_does_not_say_needs_an_environment(toy_run, monkeypatch, tmp_path):
    monkeypatch.setattr("robolearn.sources.CheckpointSource.env", "")
    with pytest.raises(ValueError, match="does not say what it was trained on; give --env"):
        evaluate(replace(config(toy_run, tmp_path), env=""))


def test_shuffled_instructions_are_those_of_the_split(toy_run):
    settings = replace(config(toy_run, None), env="robolearn/Lift-v0", split="novel_state")
    told = shuffled_instructions(settings, range(6))
    heights = {int(re.search(r"\d+", text)[0]) for text in told.values()}
    assert heights <= {5, 7, 9, 11, 13}


def test_an_earlier_checkpoint_has_a_folder_of_its_own(tmp_path, toy_run):
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    (early,) = checkpoint.checkpoints(run)
    shutil.copytree(early, early.with_name("0000099"))
    for policy in (early, early / "model"):
        assert default_folder(config(policy, None, replan_every=4)).name == f"eval-{early.name}"


def test_results_go_beside_the_run(tmp_path, toy_run):
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    newest = checkpoint.checkpoints(run)[-1]
    for policy in (run, newest, newest / "model"):
        assert default_folder(config(policy, None, replan_every=4)) == run / "eval"
        shuffled = config(policy, None, replan_every=4, shuffle_instructions=True)
        assert default_folder(shuffled) == run / "eval-shuffled"
    evaluate(config(run, None, replan_every=4, episodes=1))
    assert (run / "eval" / "result.json").is_file()
    alone = Path(shutil.copytree(newest / "model", tmp_path / "model"))
    assert default_folder(config(alone, None, replan_every=4)) == alone / "eval"


def test_the_films_are_of_the_counted_episodes(tmp_path, toy_run, skilled):
    result = evaluate(config(toy_run, tmp_path / "e", episodes=12, videos=5))
    filmed = {e["seed"]: e for e in result["episodes"] if e["video"]}
    # Half failures, of which there are three, then successes.
    assert sorted(filmed) == [0, 1, 2, 3, 5]
    assert json.loads((tmp_path / "e" / "result.json").read_text()) == result
    for seed, episode in filmed.items():
        assert episode["video"] == f"videos/{seed:07d}.mp4"
        with av.open(str(tmp_path / "e" / episode["video"])) as container:
            assert container.streams.video[0].average_rate == 10
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == -(-episode["length"] // 2)
        # The last picture shows the end: a full bar, green after success.
        bar = frames[-1][-1, :, :].astype(int)
        assert ((bar[:, 1] - bar[:, 0]).mean() > 60) == episode["success"]


def test_every_group_of_failures_is_filmed_before_one_is_filmed_again():
    groups = ["dropped", "dropped", "fault", "dropped", "collision", "fault"]
    failed = [{"seed": seed, "failure": group} for seed, group in enumerate(groups)]
    assert [e["seed"] for e in _groups_in_turn(failed)] == [0, 2, 4, 1, 5, 3]


@pytest.mark.parametrize(("videos", "filmed"), [(2, 2), (1, 1), (50, 6)])
def test_as_many_films_as_asked_for_even_if_all_fail(tmp_path, toy_run, videos, filmed):
    result = evaluate(config(toy_run, tmp_path / "e", episodes=6, videos=videos))
    assert result["successes"] == 0
    assert sum(e["video"] is not None for e in result["episodes"]) == filmed


def test_an_episode_that_ran_differently_is_not_shown(tmp_path, toy_run, monkeypatch):
    def differently(env, actor, seeds, **options):
        for episode in rollout(env, actor, seeds, **options):
            episode.success[-1] = True
            yield episode

    monkeypatch.setattr(filming, "rollout", differently)
    result = evaluate(config(toy_run, tmp_path / "e", videos=2))
    assert [e["video"] for e in result["episodes"]] == [None] * 5


def none_is_left(job, seeds, **_):
    assert not seeds
    yield from ()


def test_filming_that_fails_does_not_cost_the_result(tmp_path, toy_run, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(filming, "write_video", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(config(toy_run, tmp_path / "e", videos=2))
    stored = json.loads((tmp_path / "e" / "result.json").read_text())
    assert (stored["n"], stored["episodes"][0]["video"]) == (5, None)
    monkeypatch.undo()
    monkeypatch.setattr(evaluation, "run_seeds", none_is_left)
    again = evaluated(config(toy_run, tmp_path / "e", videos=2))
    assert sum(episode["video"] is not None for episode in again["episodes"]) == 2


def test_a_policy_for_another_arm_is_refused_with_a_sentence(tmp_path, toy_run):
    """Also when it is a worker that notices."""
    settings = config(toy_run, tmp_path / "e", env="robolearn/PickPlace-v0", workers=1)
    with pytest.raises(CheckpointError, match=r"trained on toy with joints .* and so101 has"):
        evaluate(settings)
    assert not (tmp_path / "e" / "result.json").exists()


def test_a_policy_for_other_cameras_is_refused(tmp_path):
    cameras = {"top": toy.SIZE, "wrist": (24, 24)}
    toy.tiny_policy(cameras=cameras).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="trained on camera 'wrist' at 24x24"):
        evaluate(config(tmp_path / "model", tmp_path / "e"))


def test_a_crash_in_an_episode_is_an_error_not_a_failure(tmp_path, toy_run, monkeypatch):
    original = toy.Toy.step

    def step(self, action):
        if self.seed == 3:
            raise ArithmeticError("the simulator broke")
        return original(self, action)

    monkeypatch.setattr(toy.Toy, "step", step)
    with pytest.raises(ArithmeticError, match="the simulator broke"):
        evaluate(config(toy_run, tmp_path / "e"))
    assert not (tmp_path / "e" / "result.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "cannot evaluate 0 episodes"),
        ({"seed": -1}, "from seed -1"),
        ({"episodes": 1, "shuffle_instructions": True}, "take 2 or more"),
        ({"replan_every": 99}, "replan_every is 99; a chunk of this policy has 4 steps"),
        ({"env": "robolearn/Pickplace-v0"}, "near matches: robolearn/PickPlace-v0"),
        ({"paraphrases": "sung"}, "paraphrases is 'sung'; choose one of"),
        ({"device": "warp"}, "no device 'warp'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, toy_run, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(config(toy_run, tmp_path / "e", **changes))


def test_a_folder_that_cannot_be_written_shows_before_the_work(tmp_path, toy_run, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(evaluation, "run_seeds", None)
    with pytest.raises(OSError, match="file"):
        evaluate(config(toy_run, tmp_path / "file" / "e"))


def test_an_evaluation_that_fails_leaves_the_one_before(tmp_path, toy_run):
    evaluate(config(toy_run, tmp_path / "e"))
    before = {path: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    with pytest.raises(ValueError, match="near matches"):
        evaluate(config(toy_run, tmp_path / "e", env="robolearn/Fly-v0"))
    assert {path: path.read_bytes() for path in (tmp_path / "e").iterdir()} == before


def test_the_command_says_what_it_found(tmp_path, toy_run, capsys):
    assert main(config(toy_run, tmp_path / "e")) == 0
    said = capsys.readouterr().out
    assert "success 0.0% (95 % interval 0.0% to 43.4%), n = 5" in said
    assert f"robolearn report {tmp_path / 'e'}" in said
