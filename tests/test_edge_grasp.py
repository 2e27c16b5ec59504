"""envs/edge_grasp.py: what counts as success, how episodes start, that the edge is needed."""

from itertools import combinations, product

import mujoco
import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.envs import edge_grasp, scene
from robolearn.envs.edge_grasp import (
    BOARD,
    CARD,
    CARDS,
    FRONT,
    LYING,
    ONE_HOT,
    PHRASES,
    RAISED,
    EdgeGrasp,
)
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

ENV_ID = "robolearn/EdgeGrasp-v0"


@pytest.fixture(scope="module")
def env():
    return EdgeGrasp(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Eight episodes of the expert: the infos, overhangs (m) and last state and goal of each."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(8)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    task, infos, overhangs = env.unwrapped, [], []
    for action in task.expert(stream(seed, "expert")):
        overhangs.append(task._overhang())
        _, _, terminated, truncated, info = env.step(action)
        infos.append(info)
        if terminated or truncated:
            break
    return infos, np.array(overhangs), State(*(part.copy() for part in task.state)), task.goal


def lift(env, card, height):
    """Puts a card into the air above where it lies."""
    pose = env.data.joint(f"{CARDS[card]} card").qpos.copy()
    pose[2] = height
    scene.put(env.model, env.data, f"{CARDS[card]} card", pose)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def test_the_expert_solves_it(demonstrations):
    assert sum(infos[-1][Info.IS_SUCCESS] for infos, *_ in demonstrations) >= 7


def test_the_expert_slides_the_card_over_the_edge(demonstrations):
    for infos, overhangs, _, _ in demonstrations:
        progress = np.array([info[Info.PROGRESS] for info in infos])
        up = progress > edge_grasp.NEARNESS + edge_grasp.SLID + 0.1
        assert overhangs[0] < -edge_grasp.INSET[0] / 2
        if up.any():
            assert overhangs[up.argmax() - 1] > edge_grasp.ENOUGH / 2


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = []
    for infos, *_ in demonstrations:
        progress = np.array([info[Info.PROGRESS] for info in infos])
        assert (progress >= 0.0).all()
        assert (progress <= 1.0).all()
        thirds.append([part.mean() for part in np.array_split(progress, 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.1 < second < third - 0.1


def test_each_condition_of_success_counts(env, demonstrations):
    """From a state that succeeds, each row but the first spoils one condition."""
    solved = [d for d in demonstrations if d[0][-1][Info.IS_SUCCESS]]
    _, _, last, goal = solved[0]
    state = State(*(np.repeat(part, 7, axis=0) for part in last))
    goal = np.repeat(goal[None], 7, axis=0)
    card = int(goal[0, ONE_HOT].argmax())
    touch, jaw = env._touches[:, card]
    joint, other = (env.model.joint(f"{CARDS[k]} card") for k in (card, 1 - card))
    state.sensordata[1, [touch, jaw]] = 0  # thrown
    state.sensordata[2, touch] = state.sensordata[2, jaw]  # it lies on one jaw
    state.sensordata[3, jaw] = 0
    state.qvel[4, joint.dofadr[0] + 2] = 1.5 * edge_grasp.SLOW
    state.qpos[5, joint.qposadr[0] + 2] = LYING + 0.95 * RAISED
    state.qpos[6, other.qposadr[0]] += 1.2 * edge_grasp.OTHER_MAY_MOVE
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True] + [False] * 6
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_the_wrong_card_fails(env, demonstrations):
    solved = [d for d in demonstrations if d[0][-1][Info.IS_SUCCESS]]
    _, _, state, goal = solved[0]
    other = goal.copy()
    other[edge_grasp.NAMED] = 1 - goal[edge_grasp.NAMED]
    assert env.evaluate(state, goal[None])[0][0]
    success, progress = env.evaluate(state, other[None])
    assert not success[0]
    assert progress[0] < 0.5


def test_a_card_in_the_air_that_nobody_holds_fails(env):
    env.reset(seed=0)
    lift(env, int(env.goal[ONE_HOT].argmax()), LYING + 3 * RAISED)
    ended, info = hold(env, 20)
    assert not any(ended)
    assert info[Info.PROGRESS] < 0.5  # it has come down again


def test_evaluation_of_a_batch_is_that_of_its_rows(env, demonstrations):
    states = [[part[0] for part in state] for _, _, state, _ in demonstrations]
    batch = State(*map(np.stack, zip(*states, strict=True)))
    batch.qpos[:3, env._cards.qpos] = env._start.qpos[env._cards.qpos]
    goals = np.stack([goal for *_, goal in demonstrations])
    success, progress = env.evaluate(batch, goals)
    for i in range(len(goals)):
        row = State(*(part[i : i + 1] for part in batch))
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
    assert success.any()
    assert not success.all()


def geoms(model, body):
    """The colliding geoms of a body."""
    own = model.body(body).id
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] == own and model.geom_contype[g]]


def test_nothing_overlaps_or_moves_at_the_start(env):
    cards = [geoms(env.model, f"{c} card") for c in CARDS]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    groups = [*combinations([*cards, arm], 2), (geoms(env.model, "board"), arm)]
    pairs = [pair for a, b in groups for pair in product(a, b)]
    for seed in range(100):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        assert env._overhang() < 0.0
    before = env.state.qpos[0, env._cards.qpos].copy()
    hold(env, 10)
    np.testing.assert_allclose(env.state.qpos[0, env._cards.qpos], before, atol=1e-3)


def test_cards_lie_on_the_board(env):
    for seed in range(100):
        start = env.draw(seed, None)
        for pose in start.qpos[env._cards.qpos].reshape(-1, 7):
            x, y, turn = start.goal[FRONT]
            off = edge_grasp._turned(pose[:2] - [x, y], -turn)
            reach = np.hypot(*CARD[:2]) / 2
            assert off[0] + reach < BOARD[0]
            assert abs(off[1]) + reach < BOARD[1] / 2


def test_every_card_is_asked_for_in_words_of_the_training_set(env):
    known = PHRASES.all("train")
    drawn = [env.draw(seed, None) for seed in range(100)]
    cards = [known[start.instruction][0] for start in drawn]
    assert 30 < sum(cards) < 70
    assert all(start.goal[ONE_HOT].argmax() == c for start, c in zip(drawn, cards, strict=True))


def test_the_goal_picture_shows_the_card_in_the_hand(env):
    arm = {g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2}
    board = geoms(env.model, "board")
    for seed in range(10):
        env.reset(seed=seed)
        env._place(env.data, env.goal_scene(env._start))
        assert env._pose()[2] > LYING + RAISED
        assert env._overhang() > 0.9 * edge_grasp.ENOUGH
        assert env.evaluate(env.state, env.goal[None])[0][0]  # between both jaws
        assert min(contact.dist for contact in env.data.contact) > -0.003
        gaps = [
            mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None)
            for pair in product(arm, board)
        ]
        assert min(gaps) > 0.001
