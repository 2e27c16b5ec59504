"""envs/write.py: what leaves ink, what counts as written, what stays and what a reset wipes."""

from collections import Counter
from itertools import islice, pairwise

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs import write
from robolearn.envs.batch import BatchedEnv
from robolearn.envs.failures import Witness
from robolearn.envs.task import State
from robolearn.envs.write import KNOWN, LETTERS, NOVEL, PHRASES, Write, corners, spread
from robolearn.registry import make_env
from robolearn.seeding import stream

ENV_ID = "robolearn/Write-v0"
ZED = {"instruction": "write the letter Z on the board"}
INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION


@pytest.fixture(scope="module")
def env():
    return Write(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Ten episodes of the expert: the infos of their steps."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(10)]


@pytest.fixture(scope="module")
def written():
    """Just after a Z was written, with pictures; tests leave it as it is."""
    env = Write(cameras=("top",), goal_pixels=True)
    first, _ = env.reset(seed=0, options=ZED)
    for action in islice(env.expert(stream(0, "expert")), 500):
        last, _, terminated, *_ = env.step(action)
        if terminated:
            return env, first, last
    pytest.fail("the expert never ends")


def copies(env, n=1):
    """The running simulation n times, writable, and its goal."""
    state = State(*(np.repeat(part, n, axis=0) for part in env.state))
    return state, np.repeat(env.goal[None], n, axis=0)


def trace(env, places, force=0.5, state=None):
    """The state after the pen was drawn along places (K, 2), pressed so hard, and put aside."""
    state, goal = state or copies(env)[0], env.goal[None]
    for place in places:
        state.sensordata[0, write.NIB_PLACE] = [*place, write.SURFACE]
        state.sensordata[0, write.FORCE] = force
        env.remember(state, goal)
    aside = [*goal[0, write.FRAME][:2] - [0.0, 1.1 * write.GONE], 0.1]
    state.sensordata[0, write.NIB_PLACE], state.sensordata[0, write.FORCE] = aside, 0.0
    env.remember(state, goal)
    return state


def way(env, count=150):
    """Places (count, 2) along the named letter, in the order of writing."""
    return spread(corners(int(env.goal[write.ONE_HOT].argmax()), env.goal[write.FRAME]), count)


def drops(state):
    """Places (K, 3) of the ink that is on the board."""
    ink = state.mocap_pos[0, write.FIRST_DROP :]
    return ink[ink[:, 2] > 0.0]


def told(env, state):
    """Whether it counts, the progress, and the share that is written."""
    (done,), (progress,) = env.evaluate(state, env.goal[None])
    return bool(done), float(progress), float(env.grades(state)["written"][0])


def test_the_expert_solves_it(demonstrations):
    assert sum(infos[-1][Info.IS_SUCCESS] for infos in demonstrations) >= 9


def test_progress_grows_with_the_share_that_is_written(demonstrations):
    for infos in demonstrations:
        rows = np.array([(i[Info.PROGRESS], i["grade/written"], i["grade/strays"]) for i in infos])
        progress, share, strays = rows.T
        assert (np.diff(share) >= 0.0).all()
        clean = (strays == 0.0) & (progress < 1.0)
        assert (np.diff(progress[clean]) >= 0.0).all()
        assert progress[0] == 0.0
        assert progress[clean].max() > 0.8


def test_a_whole_letter_in_its_order_counts(env):
    for letter in LETTERS:
        env.reset(seed=1, options={"instruction": f"write the letter {letter}"})
        state = trace(env, way(env))
        assert told(env, state) == (True, 1.0, 1.0), letter
        assert env.grades(state)["strays"] == 0.0


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=0, options=ZED)
    whole = trace(env, way(env))
    state = State(*(np.repeat(part, 5, axis=0) for part in whole))
    state.userdata[1, write.SHARE] = write.ENOUGH - 0.01
    state.userdata[2, write.ASIDE] = write.STRAYS + 1
    state.sensordata[3, write.NIB_PLACE][2] = write.SURFACE + 0.9 * write.CLEAR
    state.sensordata[4, write.NIB_PLACE][:2] = env.goal[write.FRAME][:2]
    success, progress = env.evaluate(state, np.repeat(env.goal[None], 5, axis=0))
    assert success.tolist() == [True, False, False, False, False]
    assert ((progress == 1.0) == success).all()


def test_half_a_letter_is_half_of_it(env):
    env.reset(seed=0, options=ZED)
    done, progress, share = told(env, trace(env, way(env)[:75]))
    assert not done
    assert 0.45 < share < 0.6
    assert progress == pytest.approx(write.WORTH * share)


def test_a_letter_is_written_from_its_beginning(env):
    """Backwards there is the same ink, and next to nothing written; the order mends it."""
    env.reset(seed=0, options=ZED)
    state = trace(env, way(env)[::-1])
    done, _, share = told(env, state)
    assert not done
    assert share < 0.2
    before = len(drops(state))
    assert before > 25
    assert told(env, trace(env, way(env), state=state)) == (True, 1.0, 1.0)
    assert len(drops(state)) <= before + 2  # ink upon ink is no more ink


def test_what_was_left_out_can_be_written_later(env):
    env.reset(seed=0, options=ZED)
    middle = way(env)
    state = trace(env, middle, force=0.0)
    assert not len(drops(state))  # the pen was in the air
    trace(env, middle[:40], state=state)
    trace(env, middle[70:], state=state)  # too far ahead
    assert told(env, state)[2] < 0.4
    trace(env, middle[38:], state=state)
    assert told(env, state) == (True, 1.0, 1.0)


def test_ink_beside_the_letter_is_no_success(env):
    env.reset(seed=0, options=ZED)
    middle, ahead = env.goal[write.FRAME][:2], np.array([0.07, 0.0])
    for far, allowed in ((0.015, True), (0.06, False)):
        # Away from the arm, below the letter's lowest line.
        scribble = spread(np.array([middle + ahead, middle + ahead + [0.0, far]]), 40)
        state = trace(env, scribble, state=trace(env, way(env)))
        assert told(env, state)[0] == allowed, far
        assert (env.grades(state)["strays"][0] > write.STRAYS) != allowed
    assert told(env, state)[1] < 0.95 * write.WORTH


def test_another_letter_is_no_success(env):
    env.reset(seed=2, options=ZED)
    for letter, name in enumerate(LETTERS):
        other = spread(corners(letter, env.goal[write.FRAME]), 150)
        assert told(env, trace(env, other))[0] == (name == "Z"), name


def test_an_empty_pen_writes_nothing(env):
    env.reset(seed=0, options=ZED)
    state = copies(env)[0]
    state.userdata[0, write.USED] = write.DROPS
    trace(env, way(env), state=state)
    assert not len(drops(state))
    assert told(env, state)[1:] == (0.0, 0.0)


def test_a_fast_pen_leaves_no_gaps_and_a_lifted_one_does(env):
    env.reset(seed=0, options=ZED)
    begin = way(env)[0]
    strides = begin + np.arange(5)[:, None] * [0.016, 0.0]
    line = drops(trace(env, strides))
    assert np.diff(np.sort(line[:, 0])).max() < 2 * write.DISC < 0.016
    state = copies(env)[0]
    for stride in strides:  # put down anew each time
        trace(env, [stride], state=state)
    assert len(drops(state)) == len(strides) < len(line)


def test_what_is_written_stays_when_the_state_is_saved_and_restored(written):
    env, _, last = written
    size = mujoco.mj_stateSize(env.model, INTEGRATION)
    saved, other = np.empty(size), Write(cameras=("top",))
    mujoco.mj_getState(env.model, env.data, saved, INTEGRATION)
    other.reset(seed=0, options=ZED)
    assert not other.evaluate(other.state, other.goal[None])[0][0]
    mujoco.mj_setState(other.model, other.data, saved, INTEGRATION)
    mujoco.mj_forward(other.model, other.data)
    assert other.evaluate(other.state, other.goal[None])[0][0]
    np.testing.assert_array_equal(other.data.mocap_pos, env.data.mocap_pos)
    assert np.abs(other._observe()["pixels"]["top"] - last["pixels"]["top"].astype(int)).mean() < 1


def test_a_reset_wipes_the_board(written):
    _, first, last = written
    env = Write(cameras=("top",), goal_pixels=True)
    env.reset(seed=0, options=ZED)
    trace(env, way(env), state=env.state)
    assert len(drops(env.state)) > 20
    again, info = env.reset(seed=0, options=ZED)
    assert not len(drops(env.state))
    assert not env.state.userdata.any()
    assert info[Info.PROGRESS] == 0.0
    np.testing.assert_array_equal(again["pixels"]["top"], first["pixels"]["top"])
    assert not np.array_equal(again["pixels"]["top"], last["pixels"]["top"])


def test_the_goal_picture_is_how_an_episode_ends(written):
    env, first, last = written
    goal, end, begin = (
        x.astype(int)
        for x in (first["goal_pixels"]["top"], last["pixels"]["top"], first["pixels"]["top"])
    )
    assert 5 * np.abs(goal - end).mean() < np.abs(goal - begin).mean()
    scene = env.goal_scene(env._start).mocap_pos[write.FIRST_DROP :]
    shown, left = scene[scene[:, 2] > 0.0], drops(env.state)
    gaps = np.linalg.norm(shown[:, None] - left, axis=2)
    assert gaps.min(0).max() < write.NEAR
    assert gaps.min(1).max() < write.NEAR


def test_ink_is_dark_where_the_pen_was(written):
    """In the top camera's 48 x 84 pixels, four of them wide."""
    env, first, last = written
    shade = {k: v["pixels"]["top"].mean(2) for k, v in (("first", first), ("last", last))}
    focal = env.image_size[0] / 2 / np.tan(np.radians(env.model.cam_fovy[0]) / 2)
    view = env.data.camera("top")
    local = (drops(env.state) - view.xpos) @ view.xmat.reshape(3, 3)
    assert (2 * write.DISC * focal / -local[:, 2]).min() >= 4.0
    pixels = focal * local[:, :2] / -local[:, 2:] * [1, -1] + np.array(env.image_size)[::-1] / 2
    columns, rows = pixels.astype(int).T
    assert (shade["last"][rows, columns] < 60).mean() > 0.95
    assert (shade["first"][rows, columns] > 90).mean() > 0.5


def test_dots_and_letters_are_in_view_and_on_the_board(env):
    height, width = env.image_size
    view = env.data.camera("top")
    focal = height / 2 / np.tan(np.radians(env.model.cam_fovy[env.model.camera("top").id]) / 2)
    for seed in range(100):
        start = env.draw(seed, None)
        dots = start.mocap_pos[1 : write.FIRST_DROP]
        off = np.abs(dots - start.mocap_pos[0])[:, :2]
        assert (off + write.DISC < write.BOARD[:2]).all(), seed
        local = (dots - view.xpos) @ view.xmat.reshape(3, 3)
        pixels = focal * local[:, :2] / -local[:, 2:]
        assert (np.abs(pixels) + 2 <= [width / 2, height / 2]).all(), seed
        ends = start.goal[write.WAY].reshape(-1, 2)[[0, -1]]
        assert np.linalg.norm(ends[:, None] - dots[:, :2], axis=2).min(1).max() < 1e-9


def test_the_pen_is_clear_of_the_board_at_the_start(env):
    model, board = env.model, env.model.body("board").geomadr[0]
    arm = np.flatnonzero(model.geom_contype == 2)
    for seed in range(50):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(model, env.data, a, board, 0.05, None) for a in arm]
        assert min(gaps) > 0.002, seed


def test_the_same_dots_whatever_is_asked_for(env):
    one, other = env.draw(3, None), env.draw(3, "please write me the letter J")
    np.testing.assert_array_equal(one.qpos, other.qpos)
    np.testing.assert_array_equal(one.mocap_pos, other.mocap_pos)
    assert list(LETTERS)[int(other.goal[write.ONE_HOT].argmax())] == "J"
    assert not PHRASES.all("train").keys() & PHRASES.all("held_out").keys()


@pytest.mark.parametrize("split", Write.splits)
def test_letters_that_training_never_writes(split):
    env = Write(obs_type="state", split=split)
    drawn = [int(env.draw(seed, None).goal[write.ONE_HOT].argmax()) for seed in range(150)]
    asked = Counter(list(LETTERS)[letter] for letter in drawn)
    assert set(asked) == set(NOVEL if split == "novel_object" else KNOWN)
    assert min(asked.values()) > 10
    assert not set(NOVEL) & set(KNOWN)


def test_another_scene_is_another_board_with_dots_to_be_seen():
    shown = []
    for split in ("train", "novel_scene"):
        env = Write(cameras=("top",), split=split)
        picture = env.reset(seed=1)[0]["pixels"]["top"].astype(int)
        board = np.median(picture.reshape(-1, 3), axis=0)
        blue = (picture[..., 2] - picture[..., 0]) > (board[2] - board[0] + 15)
        assert blue.sum() > 6 * 4  # of the nine dots the hand hides some
        shown.append(board)
    assert np.abs(shown[0] - shown[1]).max() > 30


@pytest.mark.parametrize("split", Write.splits[1:])
def test_the_expert_solves_other_splits(split):
    env = make_env(ENV_ID, obs_type="state", split=split)
    assert sum(demonstrate(env, seed)[-1][Info.IS_SUCCESS] for seed in range(4)) >= 3


def test_an_unknown_letter_is_refused(env):
    with pytest.raises(ValueError, match="Write does not know 'write the letter Q'; try for ex"):
        env.reset(options={"instruction": "write the letter Q"})


def test_a_failed_episode_is_told_by_its_progress():
    env = Witness(make_env(ENV_ID, obs_type="state", max_episode_steps=8))
    env.reset(seed=0)
    still = env.unwrapped.joints.position(env.unwrapped.data.qpos)
    ends = [env.step(still)[4] for _ in range(8)]
    assert ends[-1][Info.FAILURE] == "no progress"


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    env.reset(seed=4, options=ZED)
    middle = way(env)
    rows = [trace(env, middle[:end]) for end in (0, 40, 150)]
    batch = State(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))
    goals = np.repeat(env.goal[None], 3, axis=0)
    for place in middle[40:80:2]:  # the second goes on, the others stay as they are
        for part in (batch, rows[1]):
            row = part.sensordata[1:2] if part is batch else part.sensordata
            row[:, write.NIB_PLACE], row[:, write.FORCE] = [*place, write.SURFACE], 0.5
        env.remember(batch, goals)
        env.remember(rows[1], goals[1:2])
    success, progress = env.evaluate(batch, goals)
    assert success.tolist() == [False, False, True]
    for i, row in enumerate(rows):
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
        np.testing.assert_array_equal(row.mocap_pos[0], batch.mocap_pos[i])
        np.testing.assert_array_equal(
            env.environment_state(batch, goals)[i], env.environment_state(row, goals[i : i + 1])[0]
        )


def test_a_batch_writes_bit_for_bit_what_single_environments_write():
    seeds, single = (5, 6), make_env(ENV_ID, obs_type="state", style="fast")
    ways, ends, ink = [], [], []
    for seed in seeds:
        single.reset(seed=seed)
        script = single.unwrapped.expert(stream(seed, "expert"))
        steps = [(action, single.step(action)) for action in islice(script, 70)]
        ways.append([action for action, _ in steps])
        ends.append(steps[-1][1][0]["environment_state"])
        ink.append(drops(single.unwrapped.state))
    batch = BatchedEnv(ENV_ID, 2, autoreset_mode="Disabled", threads=1)
    batch.reset(seed=list(seeds))
    for actions in zip(*ways, strict=True):
        observation = batch.step(np.stack(actions))[0]
    np.testing.assert_array_equal(observation["environment_state"], ends)
    for slot, left in enumerate(ink):
        assert len(left) > 10
        together = batch._state.mocap_pos[slot, write.FIRST_DROP :]
        np.testing.assert_array_equal(together[together[:, 2] > 0.0], left)


def test_places_are_spread_evenly():
    for letter in range(len(LETTERS)):
        way = corners(letter, np.array([0.2, 0.01, 0.2, 0.07, 0.10]))
        along = [np.linalg.norm(b - a) for a, b in pairwise(spread(way, 2000))]
        assert np.ptp(sorted(along)[10:]) < 1e-5  # but where a step goes round a corner
        assert sum(along) == pytest.approx(np.linalg.norm(np.diff(way, axis=0), axis=1).sum(), 1e-3)
