"""Practice without reward: rounds, adapters, goals, rehearsal, and going on where it was cut."""

import json
import shutil
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
import toy
from cutting import cut_off_at
from PIL import Image

from robolearn import adapt as module
from robolearn import checkpoint, held_out
from robolearn.adapt import ORIGINAL, PRACTISED, Adaptation, adapt
from robolearn.contract import Info
from robolearn.dataset import EpisodeDataset
from robolearn.learn_options import AdaptConfig
from robolearn.nearness import NEAREST
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.train import train
from robolearn.windows import PER_STEP

SHORT = replace(toy.TINY_ACT2GOAL, horizon=2, stride=1, far=1)  # toy demonstrations take few steps


@pytest.fixture(scope="module")
def base(tmp_path_factory, toy_data):
    run = tmp_path_factory.mktemp("adapt") / "base"
    train(toy.train_config(toy_data, run, policy=SHORT))
    return run


def config(base, out, **changes):
    small = {"episodes": 4, "steps": 6, "updates": 3, "batch_size": 8, "rank": 2, "evaluate": 2}
    small |= {"learning_rate": 3e-3}  # so that changes stand out from the rounding of weights
    small |= {"replan_every": 2, "rounds": 2, "revisit": 0.5, "workers": 0}
    return AdaptConfig(policy=base, out=out, **{**small, **changes})


@pytest.fixture(scope="module")
def whole(base):
    """A run of two rounds, and its result."""
    out = base.parent / "whole"
    return out, adapt(config(base, out))


def weights(folder):
    return checkpoint.load_policy(folder).state_dict()


def changed(one, other):
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def test_rounds_practise_learn_and_evaluate(base, whole):
    out, figures = whole
    assert [row["round"] for row in figures["rounds"]] == [0, 1, 2]
    assert [row.get("revisited") for row in figures["rounds"]] == [None, 0, 2]
    first, second = (EpisodeDataset(out / f"rounds/{k}/rollouts").episodes for k in (1, 2))
    assert len(first) == len(second) == 4
    assert len({*first.seed, *second.seed}) == 6  # two scenes are known
    assert changed(weights(base), weights(out / "checkpoints/0000001"))
    assert changed(weights(out / "checkpoints/0000001"), weights(out))


def test_only_weights_of_layers_change_and_by_no_more_than_the_rank(base, whole):
    before, after = weights(base), weights(whole[0])
    policy = checkpoint.load_policy(base)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = {n for n, part in policy.named_modules() if isinstance(part, kinds)}
    found = changed(before, after)
    assert found <= {f"{name}.weight" for name in layers if "autoencoder" not in name}
    assert len(found) > 20
    assert any(before[name].dim() == 4 for name in found)
    apart = [(after[name] - before[name]).flatten(1) for name in found]
    assert max(torch.linalg.matrix_rank(x, rtol=1e-3).item() for x in apart) <= 2


def test_linear_layers_alone_learn_if_told_so(base, tmp_path):
    run = Adaptation(config(base, tmp_path / "out", weights="lora-linear"))
    run.collect(1)
    run.learn(1)
    after = weights(tmp_path / "out")
    found = changed(weights(base), after)
    assert found
    assert all(after[name].dim() == 2 for name in found)


def test_practice_lasts_as_long_as_told_and_tries_what_seems_beyond_reach(base, tmp_path):
    lost = tmp_path / "lost"
    acting = checkpoint.load_policy(base)
    with torch.no_grad():
        acting.backbone.distance.mlp[-1].bias.add_(50.0)
    acting.save(lost)
    longer = 30  # the toy's own limit is 24
    run = Adaptation(config(lost, tmp_path / "out", steps=longer, data=None, rehearsal=0.0))
    run.collect(1)
    rollouts = EpisodeDataset(run.rollouts(1))
    assert rollouts.episodes.length.tolist() == [longer] * 4
    assert np.ptp(rollouts.columns["action"], 0).max() > 0.01
    for settings in run._evaluations(1):
        assert settings.keep_trying


def test_without_an_expert_evaluations_show_the_pictures_that_were_given(
    base, tmp_path, monkeypatch
):
    monkeypatch.delattr(toy.Toy, "expert")
    with pytest.raises(ValueError, match="no expert to demonstrate; give a --goal FILE"):
        Adaptation(config(base, tmp_path / "own", goal=("own",)))
    assert not (tmp_path / "own" / "adapt.json").exists()
    files = []
    for name, size in toy.CAMERAS.items():
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
        files.append(f"{name}={tmp_path / name}.png")
    run = Adaptation(config(base, tmp_path / "files", goal=tuple(files)))
    assert {settings.goal for settings in run._evaluations(0)} == {tuple(files)}


def test_gradients_reach_adapters_alone(base, tmp_path, whole, monkeypatch):
    learning = []
    minimise = module.minimise

    def watched(student, loss, **settings):
        loss(0).backward()
        learning.extend(n for n, p in student.named_parameters() if p.grad is not None)
        student.zero_grad()
        return minimise(student, loss, **settings)

    monkeypatch.setattr(module, "minimise", watched)
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    Adaptation(config(base, run)).learn(1)
    assert learning
    assert all("lora_" in name for name in learning)


@pytest.mark.parametrize("kind", ["susie", "cem"])
def test_whatever_is_shown_its_goal_practises(kind, toy_data, tmp_path):
    policy = {"susie": toy.TINY_SUSIE, "cem": toy.TINY_CEM}[kind]
    train(toy.train_config(toy_data, tmp_path / kind, policy=policy))
    few = {"episodes": 2, "updates": 2, "evaluate": 1, "rounds": 1}
    figures = adapt(config(tmp_path / kind, tmp_path / "out", **few))
    assert len(figures["rounds"]) == 2
    assert changed(weights(tmp_path / kind), weights(tmp_path / "out"))
    assert (tmp_path / "out" / "rounds" / "1" / "imagined.png").exists()


def test_everything_learns_if_told_so(base, tmp_path):
    run = Adaptation(config(base, tmp_path / "out", weights="full"))
    run.collect(1)
    run.learn(1)
    found = changed(weights(base), weights(tmp_path / "out"))
    assert {"backbone.world.place", "head.norm.bias", "backbone.world.eye.1.weight"} <= found
    assert not any("autoencoder" in name for name in found)


def test_demonstrations_are_rehearsed_as_often_as_told(base, tmp_path, monkeypatch):
    seen = []
    loss = Act2GoalPolicy.loss

    def noted(policy, batch, rng):
        seen.append(batch["agent_pos"].numpy())
        return loss(policy, batch, rng)

    monkeypatch.setattr(Act2GoalPolicy, "loss", noted)
    run = Adaptation(config(base, tmp_path / "out", rehearsal=0.5))
    run.collect(1)
    run.learn(1)
    practised = EpisodeDataset(run.rollouts(1)).columns["agent_pos"]
    known = run.demonstrations.columns["agent_pos"]
    assert seen
    for batch in seen:
        assert len(batch) == 8
        for half, dataset in ((batch[:4], practised), (batch[4:], known)):
            assert all((dataset == row).all(1).any() for row in half)


def as_if(run, number, nearest):
    """A round whose episodes came so near to their goals, as the policy estimated."""
    seeds = EpisodeDataset(run.rollouts(number)).episodes.seed
    told = {str(seed): steps for seed, steps in zip(seeds, nearest, strict=True)}
    (run.folder(number) / NEAREST).write_text(json.dumps(told))
    return seeds


def test_a_round_notes_how_near_its_policy_saw_itself_come(base, whole):
    out, figures = whole
    for row in figures["rounds"][1:]:
        told = json.loads((out / f"rounds/{row['round']}/{NEAREST}").read_text())
        seeds = EpisodeDataset(out / f"rounds/{row['round']}/rollouts").episodes.seed
        assert told.keys() == {str(seed) for seed in seeds}
        assert row["arrived"] == np.mean([steps <= 2 for steps in told.values()])
        assert (row["learned"], row["updates"]) == (4, 3)


@pytest.mark.parametrize(("which", "kept"), [("successes", [0, 3]), ("failures", [1, 2])])
def test_a_policy_learns_of_successes_or_failures_alone(base, tmp_path, monkeypatch, which, kept):
    seen = set()
    loss = Act2GoalPolicy.loss

    def noted(policy, batch, rng):
        seen.update(map(tuple, batch["agent_pos"].numpy()))
        return loss(policy, batch, rng)

    monkeypatch.setattr(Act2GoalPolicy, "loss", noted)
    settings = {"rehearsal": 0.0, "batch_size": 64}
    run = Adaptation(config(base, tmp_path / "out", learn_from=which, **settings))
    run.collect(1)
    as_if(run, 1, [2.0, 2.1, 40.0, 0.5])  # it looks again every two steps
    row = run.learn(1)
    assert (row["arrived"], row["learned"], row["updates"]) == (0.5, 2, 3)
    rollouts = EpisodeDataset(run.rollouts(1))
    table, places = rollouts.episodes, rollouts.columns["agent_pos"]
    frames = [
        {*map(tuple, places[s : s + n])} for s, n in zip(table.start, table.length, strict=True)
    ]
    wanted = set().union(*(frames[number] for number in kept))
    assert seen <= wanted
    assert len(seen) > len(frames[0])  # of more than one of them


@pytest.mark.parametrize(("which", "steps"), [("successes", 40.0), ("failures", 1.0)])
def test_a_round_without_any_leaves_the_policy_as_it_was(
    base, whole, tmp_path, capsys, which, steps
):
    run = Adaptation(config(base, tmp_path / "out", learn_from=which))
    for number in (1, 2):
        run.collect(number)
        as_if(run, number, [steps] * 4)
        row = run.learn(number)
        assert (row["learned"], row["updates"], "loss" in row) == (0, 0, False)
        assert not changed(weights(base), weights(run.policy(number)))
        assert f"round {number} has no {which}: the policy stays" in capsys.readouterr().err
    # After a round in which it did learn, what it learned stays.
    run = Adaptation(config(base, tmp_path / "again", learn_from=which))
    run.collect(1)
    as_if(run, 1, [1.0, 40.0] * 2)
    run.learn(1)
    run.collect(2)
    as_if(run, 2, [steps] * 4)
    run.learn(2)
    assert changed(weights(base), weights(run.policy(1)))
    assert not changed(weights(run.policy(1)), weights(run.policy(2)))


def test_a_round_ends_when_the_loss_on_rollouts_that_are_held_out_rises(
    base, tmp_path, monkeypatch
):
    """As if whatever is learned made them worse: so nothing of it is kept."""
    monkeypatch.setattr(held_out, "EVERY", 1)
    losses = iter(range(1000))
    taught, loss = [], Act2GoalPolicy.loss

    def rising(policy, batch, rng):
        if policy.training:
            taught.extend(map(tuple, batch["agent_pos"].numpy()))
            return loss(policy, batch, rng)
        return torch.tensor(float(next(losses))), {}

    monkeypatch.setattr(Act2GoalPolicy, "loss", rising)
    settings = {"held_out": 0.5, "updates": 20, "rehearsal": 0.0, "batch_size": 64}
    run = Adaptation(config(base, tmp_path / "out", **settings))
    run.collect(1)
    row = run.learn(1)
    assert (row["updates"], row["kept"], row["held_out"]) == (held_out.PATIENCE, 0, 1.5)
    assert not changed(weights(base), weights(run.policy(1)))
    rollouts = EpisodeDataset(run.rollouts(1))
    table, places = rollouts.episodes, rollouts.columns["agent_pos"]
    from_whom = [
        any(tuple(place) in set(taught) for place in places[start + 1 : start + length])
        for start, length in zip(table.start, table.length, strict=True)
    ]
    assert sorted(from_whom) == [False, False, True, True]


def test_a_round_that_is_watched_keeps_what_helps_and_goes_on_where_it_was_cut(base, tmp_path):
    few = {"updates": 12, "evaluate": 1, "rounds": 1, "held_out": 0.25}
    row = adapt(config(base, tmp_path / "out", **few))["rounds"][1]
    assert row["updates"] == 12
    assert row["kept"] in (0, 10, 12)
    assert row["held_out"] > 0.0
    assert "Held out" in (tmp_path / "out" / "report.html").read_text()
    shutil.rmtree(tmp_path / "out/checkpoints")
    (tmp_path / "out/rounds/1/figures.json").unlink()
    again = Adaptation(config(base, tmp_path / "out", **few)).run()[1]
    assert again == {key: value for key, value in row.items() if key != "minutes"}


def test_rounds_of_successes_end_with_a_page(base, tmp_path):
    few = {"episodes": 2, "updates": 2, "evaluate": 1, "rounds": 1}
    figures = adapt(config(base, tmp_path / "out", learn_from="successes", **few))
    rows = figures["rounds"]
    assert rows[1]["learned"] == round(2 * rows[1]["arrived"])
    assert "Learned of" in (tmp_path / "out" / "report.html").read_text()


def test_who_knows_no_distance_cannot_choose(toy_data, tmp_path):
    shown = replace(toy.TINY, goal="pictures", hindsight=toy.GOALS)
    train(toy.train_config(toy_data, tmp_path / "base", policy=shown))
    with pytest.raises(ValueError, match="does not estimate how far its goal is.*act2goal"):
        Adaptation(config(tmp_path / "base", tmp_path / "out", learn_from="failures"))
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


class Secret:
    """Whoever looks at it gives himself away."""

    def __float__(self):
        raise AssertionError("practice looked at a reward")

    __bool__ = __float__


class Unpaid(toy.Toy):
    """The toy task, whose rewards nobody may look at."""

    def step(self, action):
        observation, _, _, truncated, info = super().step(action)
        hidden = dict.fromkeys((Info.IS_SUCCESS, Info.SUCCESS, Info.PROGRESS), Secret())
        return observation, Secret(), Secret(), truncated, {**info, **hidden}


class Unread(dict):
    """A batch in which nobody may look at rewards."""

    def __getitem__(self, name):
        assert name not in PER_STEP
        return super().__getitem__(name)


@pytest.mark.parametrize("which", ["all", "successes", "failures"])
def test_nothing_looks_at_reward_or_success_to_learn(base, tmp_path, monkeypatch, which):
    gymnasium.register("Unpaid-v0", Unpaid, max_episode_steps=toy.STEPS, disable_env_checker=True)
    loss = Act2GoalPolicy.loss

    def blind(policy, batch, rng):
        assert not batch.keys() & PER_STEP
        return loss(policy, Unread(batch), rng)

    monkeypatch.setattr(Act2GoalPolicy, "loss", blind)
    try:
        run = Adaptation(
            config(base, tmp_path / "out", env="Unpaid-v0", goal=("own",), learn_from=which)
        )
        for number in (1, 2):
            run.collect(number)
            as_if(run, number, [1.0, 40.0] * 2)
            assert np.isfinite(run.learn(number)["loss"])
        columns = EpisodeDataset(run.rollouts(2)).columns
        assert not columns["reward"].any()
        assert not columns["success"].any()
        assert not columns["progress"].any()
        with pytest.raises(AssertionError, match="looked at a reward"):
            run.evaluate(1)  # which is what success is for
    finally:
        del gymnasium.registry["Unpaid-v0"]


def cut(run, where):
    """A run as a crash would leave it."""
    if where == "before learning":
        shutil.rmtree(run / "checkpoints/0000002")
    shutil.rmtree(run / f"rounds/2/{ORIGINAL}")
    (run / "rounds/2/figures.json").unlink()


@pytest.mark.parametrize("where", ["before learning", "before evaluating"])
def test_a_run_that_was_cut_off_ends_with_the_same_table(base, whole, tmp_path, where):
    done, figures = whole
    run = tmp_path / "run"
    shutil.copytree(done, run)
    cut(run, where)
    assert Adaptation(config(base, run)).run() == without_minutes(figures)
    for number in ("0000001", "0000002"):
        folder = f"checkpoints/{number}/model"
        assert checkpoint.fingerprint(run / folder) == checkpoint.fingerprint(done / folder)


@pytest.mark.parametrize("episode", [2, 7])
def test_so_does_one_that_was_cut_off_while_practising(base, whole, tmp_path, monkeypatch, episode):
    with cut_off_at(episode, monkeypatch):
        Adaptation(config(base, tmp_path / "run")).run()
    assert Adaptation(config(base, tmp_path / "run")).run() == without_minutes(whole[1])


def without_minutes(figures):
    return [{k: v for k, v in row.items() if k != "minutes"} for row in figures["rounds"]]


def test_more_rounds_go_on_with_the_same_run(base, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    further = Adaptation(config(base, run, rounds=3))
    assert further.run()[:3] == without_minutes(whole[1])
    assert further.minutes(3) > further.minutes(2) > further.minutes(0) == 0.0
    with pytest.raises(ValueError, match="other settings"):
        Adaptation(config(base, run, rank=3))


def test_practice_ends_with_the_round_in_which_the_minutes_are_over(base, tmp_path, monkeypatch):
    monkeypatch.setattr(Adaptation, "collect", lambda run, number: 0)
    monkeypatch.setattr(Adaptation, "learn", lambda run, number: {"loss": 0.0})
    monkeypatch.setattr(Adaptation, "evaluate", lambda run, number: {ORIGINAL: 0.5, PRACTISED: 0.5})
    monkeypatch.setattr(Adaptation, "seconds", lambda run, number: {"collect": 20.0, "learn": 10.0})
    run = Adaptation(config(base, tmp_path / "out", rounds=0, minutes=1.2))
    assert [row["round"] for row in run.run()] == [0, 1, 2, 3]


def test_the_stability_gap_is_that_of_the_original_goals(base, tmp_path, monkeypatch):
    original, practised = iter([0.8, 0.4, 0.7]), iter([0.1, 0.5, 0.9])
    monkeypatch.setattr(Adaptation, "collect", lambda run, number: 0)
    monkeypatch.setattr(Adaptation, "learn", lambda run, number: {"loss": 0.0})
    monkeypatch.setattr(
        Adaptation,
        "evaluate",
        lambda run, number: {ORIGINAL: next(original), PRACTISED: next(practised)},
    )
    first, second, third = Adaptation(config(base, tmp_path / "out")).run()
    assert "min_acc" not in first
    assert (second["min_acc"], third["min_acc"]) == (0.4, 0.4)
    assert third["wc_acc"] == pytest.approx(0.5 * 0.9 + 0.5 * 0.4)
    assert third["forgetting"] == pytest.approx(0.4)


def test_an_adapted_run_is_evaluated_and_adapts_further(base, whole, tmp_path):
    run = Adaptation(config(whole[0], tmp_path / "out"))
    assert run.config.data == Adaptation(config(base, whole[0])).config.data
    assert run.config.policy == whole[0] / "checkpoints/0000002/model"


def test_goals_that_are_practised_are_evaluated_beside_the_original_ones(
    base, tmp_path, monkeypatch
):
    asked = []

    def noted(settings):
        asked.append(settings)
        return {"success": 0.5, "success_low": 0.4, "success_high": 0.6}

    monkeypatch.setattr(module, "evaluated", noted)
    for changes in ({}, {"split": "novel"}):
        Adaptation(config(base, tmp_path / str(len(changes)), **changes)).evaluate(0)
    same, also, practised, original = asked
    assert same == also
    assert (practised.split, original.split) == ("novel", "train")
    assert practised.out != original.out


def test_the_page_stands_alone(whole):
    out, figures = whole
    page = (out / "report.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    assert page.count("data:image/png") == 2  # what was imagined in each round
    assert "img-src data:" in page  # or no browser would show it
    assert page.count("<svg") == 1
    assert json.loads((out / "result.json").read_text())["rounds"] == figures["rounds"]


def test_the_command_prints_what_came_out(base, whole, tmp_path, capsys):
    shutil.copytree(whole[0], tmp_path / "run")
    assert module.main(config(base, tmp_path / "run")) == 0
    said = capsys.readouterr()
    assert "practised goals: success" in said.out
    assert f"robolearn eval --policy {tmp_path / 'run'}" in said.out
    assert "min-ACC" in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes": 0}, "--episodes is 0"),
        ({"minutes": 0.0}, "--minutes is 0"),
        ({"rehearsal": 1.0}, "--rehearsal is 1.0; give a share"),
        ({"revisit": -0.1}, "--revisit is -0.1"),
        ({"held_out": 1.0}, "--held-out is 1.0; give a share"),
        ({"seed": 7}, "--seed is 7"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_numbers_are_refused(base, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        config(base, tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replan_every": 3}, "--replan-every is 3; a chunk of this policy has 2"),
        ({"goal": ("scene",)}, "draws no goal"),
        ({"goal": ("top=no.png", "wrist=no.png")}, "no picture"),
        ({"env": "robolearn/Nowhere-v0"}, "no environment"),
        ({"env": "robolearn/Reach-v0", "split": "none"}, "split is 'none'; choose one of train"),
        ({"env": "robolearn/Reach-v0"}, "was trained on toy"),
    ],
    ids=["replan", "scene", "file", "env", "split", "arm"],
)
def test_what_cannot_be_practised_is_refused_and_leaves_nothing(base, tmp_path, changes, words):
    with pytest.raises((ValueError, OSError), match=words):
        Adaptation(config(base, tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "adapt.json").exists()


def test_a_policy_that_is_shown_no_goal_is_refused(toy_run, tmp_path):
    with pytest.raises(ValueError, match="not shown its goal.*--policy act2goal"):
        Adaptation(config(toy_run, tmp_path / "out"))


def test_a_flow_policy_that_is_shown_its_goal_practises_too(toy_data, tmp_path):
    shown = replace(toy.TINY, goal="pictures", hindsight=toy.GOALS)
    train(toy.train_config(toy_data, tmp_path / "base", policy=shown))
    run = Adaptation(config(tmp_path / "base", tmp_path / "out", goal=("own",)))
    run.collect(1)
    run.learn(1)
    assert changed(weights(tmp_path / "base"), weights(tmp_path / "out"))


def test_without_demonstrations_nothing_is_rehearsed(base, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(checkpoint.resolve(base), alone)
    with pytest.raises(ValueError, match="give --data"):
        Adaptation(config(alone, tmp_path / "out"))
    run = Adaptation(config(alone, tmp_path / "out", rehearsal=0.0))
    assert run.demonstrations is None
    run.collect(1)
    assert np.isfinite(run.learn(1)["loss"])
