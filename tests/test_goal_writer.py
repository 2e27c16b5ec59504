"""Goals that are imagined of words: what the writer learns from, and what it is told."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn import checkpoint, cli
from robolearn import evaluate as evaluation
from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.eval_folders import default_folder
from robolearn.evaluate import evaluate
from robolearn.options import EvalConfig
from robolearn.policies.endings import HELD, Endings
from robolearn.policies.goal_writer import GoalWriter
from robolearn.policies.latent_configs import GoalWriterConfig
from robolearn.policies.latents import Latents
from robolearn.recall import phrases_of, remembered
from robolearn.report import write_report
from robolearn.seeding import stream
from robolearn.sources import source_of
from robolearn.told import goal_fingerprints
from robolearn.train import train

CONFIG = replace(toy.TINY_ACT2GOAL, horizon=2, stride=1, far=1)
LEFT, RIGHT = "go to the left", "go to the right"
CELLS, CHANNELS = 6, 4
SETTINGS = GoalWriterConfig(
    width=32, depth=2, words=8, steps=250, batch_size=48, learning_rate=5e-3
)


def noise(count, seed=0):
    return [stream(seed, str(k)) for k in range(count)]


def dot(places):
    """Latents (..., N, C) of a dot at these cells."""
    bump = torch.exp(-((torch.arange(CELLS) - places[..., None]) ** 2) / 2.0)
    return torch.stack([bump, 1.0 - bump, bump - 0.5, 0.5 - bump], -1)


class Sides:
    """Episodes in which a dot goes to the first or to the last cell, as it is told."""

    def draw(self, rng, count):
        told = [(LEFT, RIGHT)[k] for k in rng.integers(2, size=count)]
        ends = torch.tensor([0.0 if text == LEFT else CELLS - 1.0 for text in told])
        return dot(torch.from_numpy(rng.uniform(1.0, CELLS - 2.0, count)).float()), told, dot(ends)


@pytest.fixture(scope="module")
def writer():
    """One that learned of the sides."""
    torch.manual_seed(0)
    found = GoalWriter(SETTINGS, (CELLS, CHANNELS), ("go", "left", "right", "the", "to"), "base")
    losses = found.train().learn(Sides(), seed=0)
    assert losses[-1] < 0.2 * losses[0]
    return found.eval()


def test_the_words_decide_on_the_goal(writer):
    now = dot(torch.tensor([2.0, 2.0, 3.0, 3.0]))
    goals = writer.write(now, [LEFT, RIGHT, LEFT, RIGHT], noise(4))
    left, right = ((goals - dot(torch.tensor(k))).square().mean((1, 2)) for k in (0.0, CELLS - 1.0))
    assert (left < right).tolist() == [True, False, True, False]
    assert torch.minimum(left, right).max() < 0.25 * torch.maximum(left, right).min()


def test_other_wordings_of_known_words_are_understood(writer):
    now = dot(torch.tensor([2.0, 2.0]))
    goals = writer.write(now, ["please move left", "please move right"], noise(2))
    places = (goals[..., 0].clamp(min=0.0) * torch.arange(CELLS)).sum(1) / goals[..., 0].sum(1)
    assert places[0] + 1.0 < places[1]


def test_an_instruction_without_a_known_word_is_refused(writer):
    with pytest.raises(ValueError, match="knows no word of 'stir soup', but go, left, right"):
        writer.write(dot(torch.tensor([2.0])), ["stir soup"], noise(1))


def test_each_goal_hangs_on_its_own_noise_alone(writer):
    now, told = dot(torch.tensor([2.0, 3.0])), [LEFT, RIGHT]
    both = writer.write(now, told, noise(2))
    assert both.shape == (2, CELLS, CHANNELS)
    torch.testing.assert_close(both[1:], writer.write(now[1:], told[1:], noise(2)[1:]))
    assert not torch.allclose(both, writer.write(now, told, noise(2, seed=1)))


def test_a_saved_writer_writes_as_before(writer, tmp_path):
    writer.save(tmp_path / "writer")
    loaded = GoalWriter.load(tmp_path / "writer")
    now = dot(torch.tensor([2.0]))
    assert torch.equal(*(one.write(now, [LEFT], noise(1)) for one in (writer, loaded)))
    toy.tiny_policy(config=CONFIG).save(tmp_path / "policy")
    with pytest.raises(CheckpointError, match="not a goal-writer"):
        GoalWriter.load(tmp_path / "policy")


def recording(folder, *episodes):
    with EpisodeWriter(folder, arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writing:
        for episode in episodes:
            writing.append(episode)
    return EpisodeDataset(folder)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Episodes of two instructions, every fourth a failure, and latents of them."""
    torch.manual_seed(0)
    told = [toy.example(seed=k, length=4 + k % 3, success=k % 4 != 3) for k in range(24)]
    told = [replace(one, instruction=(LEFT, RIGHT)[k % 2]) for k, one in enumerate(told)]
    latents = Latents(toy.CAMERAS, CHANNELS)
    return latents, recording(tmp_path_factory.mktemp("endings") / "data", *told)


def test_goals_are_the_ends_of_episodes_that_succeeded_and_are_not_held_out(seen):
    latents, dataset = seen
    examples, table = Endings(latents, dataset), dataset.episodes
    examples._seen = torch.from_numpy  # frames in place of what they show
    frames, told, ends = examples.draw(stream(0, "draw"), 500)
    episode = np.repeat(np.arange(len(table)), table.length)
    own = episode[frames.numpy()]
    assert (own == episode[ends.numpy()]).all()
    assert (ends.numpy() == table.start[own] + table.length[own] - 1).all()
    assert told == [table.instruction[k] for k in own]
    succeeded = np.flatnonzero(table.success)
    assert {*own} == {*np.delete(succeeded, np.arange(0, len(succeeded), HELD))}
    first = (frames.numpy() == table.start[own]).mean()
    assert 0.5 < first < 0.85


def test_figures_tell_how_near_goals_come_to_the_ends_of_episodes_held_out(seen):
    latents, dataset = seen
    examples, table = Endings(latents, dataset), dataset.episodes
    succeeded = np.flatnonzero(table.success)
    held, known = succeeded[::HELD], np.delete(succeeded, np.arange(0, len(succeeded), HELD))
    truth = examples._seen(table.start[held] + table.length[held] - 1)
    figures = examples.judged(lambda now, told, noise: truth, seed=0)
    assert figures["distance"]["generated"] == 0.0
    assert (figures["held"], figures["compared"]) == (2, 2)
    nearest = []
    for k, end in zip(held, truth, strict=True):
        same = [j for j in known if table.instruction[j] == table.instruction[k]]
        begun = examples._seen(table.start[[k, *same]])
        best = same[int((begun[1:] - begun[0]).square().mean((1, 2)).argmin())]
        shown = examples._seen(table.start[[best]] + table.length[best] - 1)[0]
        nearest.append(float((shown - end).square().mean()))
    assert figures["distance"]["retrieved"] == pytest.approx(np.mean(nearest), rel=1e-5)
    still = (examples._seen(table.start[held]) - truth).square().mean()
    assert figures["distance"]["now"] == pytest.approx(float(still), rel=1e-5)


def test_where_nothing_alike_was_told_nothing_is_retrieved(seen, tmp_path):
    told = ["wave", LEFT, RIGHT]
    episodes = [replace(toy.example(seed=k), instruction=text) for k, text in enumerate(told)]
    examples = Endings(seen[0], recording(tmp_path / "data", *episodes))
    distance = examples.judged(lambda now, told, noise: now, seed=0)["distance"]
    assert distance["retrieved"] is None
    assert distance["generated"] == distance["now"] > 0.0


def test_too_little_to_learn_from_says_what_is_needed(seen, tmp_path):
    one = recording(tmp_path / "one", toy.example(seed=0), toy.example(seed=1, success=False))
    with pytest.raises(DatasetError, match="fewer than two episodes that succeeded"):
        Endings(seen[0], one)
    silent = [replace(toy.example(seed=k), instruction="") for k in range(2)]
    with pytest.raises(DatasetError, match="were told nothing"):
        Endings(seen[0], recording(tmp_path / "silent", *silent))


def test_what_is_remembered_says_the_same_in_any_words():
    phrases = phrases_of("robolearn/PickPlace-v0")
    known = [*phrases.all("train")]
    told = [*phrases.all("held_out")][5]
    found = remembered(told, known, np.arange(len(known))[::-1], phrases)
    assert phrases.parse(known[found]) == phrases.parse(told)
    assert remembered("wave", known, np.zeros(len(known)), None) is None
    assert phrases_of("robolearn/Nothing-v0") is None


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("told") / "run"
    train(toy.train_config(toy_data, folder, policy=CONFIG))
    return folder


def fit_command(base, *more):
    sizes = "--policy.steps 40 --policy.width 16 --policy.depth 1 --policy.words 4"
    return f"train --policy goal-writer --base {base} {sizes}".split() + [*more]


def eval_config(run, out, **changes):
    settings = {"episodes": 2, "videos": 1, "workers": 0, "replan_every": 2}
    goal = changes.pop("goal", ("imagined",))
    return EvalConfig(policy=str(run), env=toy.ENV_ID, out=out, goal=goal, **settings, **changes)


@pytest.fixture
def fitted(run, capsys):
    assert cli.main(fit_command(run)) == 0
    assert f"--goal imagined {run / 'goal-writer'}" in capsys.readouterr().out
    yield run / "goal-writer"
    shutil.rmtree(run / "goal-writer")


def test_it_is_fitted_and_the_policy_is_told_its_goals(run, fitted, tmp_path):
    figures = json.loads((fitted / "figures.json").read_text())
    assert {*figures["distance"]} == {"generated", "retrieved", "random", "now"}
    assert figures["losses"][-1] < figures["losses"][0]
    result = evaluate(eval_config(run, tmp_path / "eval"))
    for episode in result["episodes"]:
        assert episode["goal_source"] == f"imagined by {fitted}: {episode['instruction']}"
    write_report(tmp_path / "eval", None, tmp_path / "report.html")
    assert "shown: imagined by " in (tmp_path / "report.html").read_text()
    shutil.copytree(fitted, tmp_path / "moved")
    named = eval_config(run, tmp_path / "other", goal=("imagined", str(tmp_path / "moved")))
    again = evaluate(named)
    assert [row["length"] for row in again["episodes"]] == [
        row["length"] for row in result["episodes"]
    ]
    assert default_folder(eval_config(run, None)).name == "eval-goal-imagined-replan2"


def test_another_goal_is_another_evaluation(run, fitted, toy_run, toy_data, tmp_path):
    source = source_of(run)
    assert goal_fingerprints(("imagined",), None, source) == [checkpoint.fingerprint(fitted)]
    assert goal_fingerprints(("imagined",), None, source_of(toy_run)) == []  # is shown no goal
    assert goal_fingerprints(("demonstration",), None, source) == []  # the episode's own
    recording = tmp_path / "recording"
    shutil.copytree(toy_data, recording)
    config = eval_config(run, tmp_path, goal=("words",), goal_data=recording)
    known = evaluation._about(config, source)
    next((recording / "meta" / "episodes").rglob("*.parquet")).write_bytes(b"recorded anew")
    assert evaluation._about(config, source) != known


@pytest.mark.parametrize(("entry", "name"), [("top={}", "rate=0.1.png"), ("{}", "goal.png")])
def test_another_picture_is_another_evaluation(run, tmp_path, entry, name):
    picture = tmp_path / name
    config = eval_config(run, tmp_path, goal=(entry.format(picture),))
    picture.write_bytes(b"one")
    known = evaluation._about(config, source_of(run))
    picture.write_bytes(b"two")
    assert evaluation._about(config, source_of(run)) != known


def test_a_writer_is_for_one_very_policy(run, fitted, tmp_path):
    other = toy.tiny_policy(config=CONFIG)
    other.save(tmp_path / "other")
    config = eval_config(tmp_path / "other", tmp_path / "eval", goal=("imagined", str(fitted)))
    with pytest.raises(CheckpointError, match="this goal-writer was fitted to another policy"):
        evaluate(config)


def test_what_is_missing_or_does_not_fit_says_what_to_do(run, toy_run, toy_data, tmp_path):
    with pytest.raises(CheckpointError, match="robolearn train --policy goal-writer --base"):
        evaluate(eval_config(run, tmp_path / "eval"))
    with pytest.raises(ValueError, match="--goal imagined does without"):
        evaluate(eval_config(run, tmp_path / "eval", goal_data=toy_data))
    with pytest.raises(CheckpointError, match="give an act2goal, susie or cem policy"):
        GoalWriter.fitted_to(load_policy(toy_run), "", EpisodeDataset(toy_data), None)
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize("kind", ["susie", "cem"])
def test_it_goes_beside_whatever_is_shown_its_goal_in_latents(kind, toy_data, tmp_path):
    config = {"susie": toy.TINY_SUSIE, "cem": toy.TINY_CEM}[kind]
    train(toy.train_config(toy_data, tmp_path / kind, policy=config))
    assert cli.main(fit_command(tmp_path / kind)) == 0
    result = evaluate(eval_config(tmp_path / kind, tmp_path / "eval"))
    assert result["episodes"][0]["goal_source"].startswith("imagined by ")


@pytest.mark.parametrize("name", ["width", "steps", "sample_steps", "batch_size"])
def test_settings_that_make_no_sense(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        GoalWriterConfig(**{name: 0})
