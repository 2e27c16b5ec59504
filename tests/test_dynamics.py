"""Fixed dynamics: exactly what was asked for, and nothing where nothing was."""

from functools import partial

import gymnasium
import numpy as np
import pytest
from observing import assert_same, changed, flat, numbers, run

from robolearn.bench.suite import Suite, SuiteTask
from robolearn.contract import ActionError, Info
from robolearn.envs.batch import BatchedEnv
from robolearn.envs.dynamics import NAMES, NOMINAL, SCALED, Dynamics
from robolearn.eval_folders import default_folder
from robolearn.evaluate import evaluate
from robolearn.options import EvalConfig
from robolearn.registry import make_env
from robolearn.workers import make_vector

LIFT, DRAWER, FOLD = "robolearn/Lift-v0", "robolearn/OpenDrawer-v0", "robolearn/Fold-v0"
make = partial(make_env, obs_type="state")
POINT = {"mass": 1.4, "friction": 0.6, "damping": 1.7, "servo": 0.8, "delay": 0.07}


def model_of(env_id, **options):
    env = make(env_id, **options)
    env.reset(seed=1)
    return env.unwrapped.model


@pytest.mark.parametrize("env_id", [LIFT, FOLD])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mass", ("body_mass", "body_inertia")),
        ("friction", ("geom_friction", "flex_friction")),
        ("damping", ("dof_damping", "dof_frictionloss")),
        ("servo", ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")),
    ],
)
def test_the_model_has_exactly_these_factors(env_id, name, fields):
    nominal, model = model_of(env_id), model_of(env_id, dynamics={name: 0.7})
    found = {field: getattr(model, field) for field in fields}
    wanted = {field: getattr(nominal, field) * 0.7 for field in fields}
    if name == "mass":
        fixed = nominal.body_weldid == 0
        for field in fields:
            wanted[field][fixed] = getattr(nominal, field)[fixed]
    if name == "servo":
        for field, column in (("actuator_gainprm", 0), ("actuator_biasprm", 1)):
            rest = np.arange(wanted[field].shape[1]) != column
            wanted[field][:, rest] = getattr(nominal, field)[:, rest]
    assert_same([found], [wanted])
    others = changed(numbers(nominal), numbers(model)) - {*fields}
    assert not others or name == "mass"  # which decides constants as well


@pytest.mark.parametrize("dynamics", [{}, NOMINAL, {"mass": 1}], ids=["none", "all", "one"])
def test_nominal_dynamics_change_no_bit(dynamics):
    plain, fixed = make(LIFT), Dynamics(make(LIFT), dynamics)
    nominal = numbers(plain.unwrapped.model)
    assert not changed(nominal, numbers(fixed.unwrapped.model))
    assert_same(run(fixed, seed=3), run(plain, seed=3))
    assert not changed(nominal, numbers(fixed.unwrapped.model))


@pytest.mark.parametrize("name", NAMES)
def test_every_factor_changes_what_happens_and_nothing_drifts(name):
    env = make(DRAWER, dynamics={name: POINT[name]})
    first = run(env, seed=2, steps=20)
    env.reset(seed=5)
    assert_same(run(env, seed=2, steps=20), first)
    if name != "friction":  # which random actions may not feel
        with pytest.raises(AssertionError):
            assert_same(run(make(DRAWER), seed=2, steps=20), first)


def test_random_variations_multiply_fixed_factors():
    nominal, drawn = model_of(LIFT), model_of(LIFT, variations={"mass": 3})
    both = model_of(LIFT, variations={"mass": 3}, dynamics={"mass": 1.4})
    moves = nominal.body_weldid > 0
    assert changed(numbers(nominal), numbers(drawn))
    np.testing.assert_allclose(both.body_mass[moves], 1.4 * drawn.body_mass[moves])


def test_every_action_arrives_so_late():
    plain, late = make(LIFT), make(LIFT, dynamics={"delay": 0.1})  # two of its steps
    for env in (plain, late):
        env.reset(seed=0)
    home = plain.unwrapped.arm.limits[0]
    start = late.reset(seed=0)[1][Info.ACTION_SENT]
    actions = [start + np.float32(0.05) * (k + 1) * (home != start) for k in range(6)]
    asked = [late.step(action)[4][Info.ACTION_SENT] for action in actions]
    arrived = plain.unwrapped.data.ctrl.copy(), late.unwrapped.data.ctrl.copy()
    np.testing.assert_array_equal(asked, np.clip(actions, *plain.unwrapped.arm.limits))
    plain.reset(seed=0)
    for action in asked[:4]:
        plain.step(action)
    np.testing.assert_allclose(plain.unwrapped.data.ctrl, arrived[1])


def test_a_bad_action_is_refused_whatever_the_delay():
    env = make(LIFT, dynamics={"delay": 0.1})
    env.reset(seed=0)
    with pytest.raises(ActionError, match="nan"):
        env.step(np.full(6, np.nan))


def test_gymnasium_makes_it_again_from_its_spec():
    env = make(LIFT, dynamics=POINT, variations={"push": 1})
    assert_same(run(gymnasium.make(env.spec), seed=2), run(env, seed=2))


def test_vectors_and_batches_have_them_too():
    """A batch does bit for bit what single environments do, also where a drawn delay adds to it."""
    options = {"dynamics": POINT, "variations": {"delay": 2, "mass": 1}, "obs_type": "state"}
    singles, batch = make_vector(LIFT, 2, **options), BatchedEnv(LIFT, 2, **options)
    first = [flat(env.reset(seed=[4, 9])[0]) for env in (singles, batch)]
    assert_same(first[:1], first[1:])
    rng = np.random.default_rng(0)
    low, high = batch.arm.limits
    for _ in range(8):
        action = rng.uniform(low, high, (2, low.size)).astype(np.float32)
        steps = [flat(env.step(action)[0]) for env in (singles, batch)]
        assert_same(steps[:1], steps[1:])


@pytest.mark.parametrize(
    ("dynamics", "words"),
    [
        ({"wind": 1.0}, "no dynamics 'wind'; choose from mass, friction, damping, servo, delay"),
        ({"mass": 0.0}, "mass has no factor 0.0; give one above 0, where 1 is nominal"),
        ({"servo": float("nan")}, "servo has no factor nan"),
        ({"delay": -0.1}, "a delay of -0.1 s is none; give seconds from 0 on"),
        ({"delay": 0.5}, "a delay of 0.5 s is too long; it is below 0.4 s"),
    ],
)
def test_what_no_dynamics_are(dynamics, words):
    with pytest.raises(ValueError, match=words):
        make(LIFT, dynamics=dynamics)


def test_only_simulated_tasks_have_them_and_variations_go_around():
    with pytest.raises(ValueError, match="dynamics are those of simulated tasks, and .* is none"):
        Dynamics(gymnasium.Env(), {"mass": 1.2})
    with pytest.raises(ValueError, match="mass goes around fixed dynamics, not within"):
        Dynamics(make(LIFT, variations={"mass": 1}), {"mass": 1.2})


def test_an_evaluation_has_them_and_says_so(tmp_path):
    settings = EvalConfig(
        policy="expert",
        env="robolearn/Reach-v0",
        episodes=2,
        dynamics={"servo": 0.5},
        out=tmp_path,
        videos=0,
        workers=0,
    )
    result = evaluate(settings)
    assert result["dynamics"] == {"servo": 0.5}
    plain = evaluate(EvalConfig(**{**vars(settings), "dynamics": {}}))
    lengths = [[e["length"] for e in one["episodes"]] for one in (result, plain)]
    assert lengths[0] != lengths[1]
    with pytest.raises(ValueError, match="no dynamics 'wind'"):
        evaluate(EvalConfig(**{**vars(settings), "dynamics": {"wind": 1.0}}))


def test_folders_and_suites_name_them(tmp_path, monkeypatch):
    monkeypatch.setattr("robolearn.sources.CheckpointSource.env", LIFT)
    (tmp_path / "model.safetensors").touch()
    fixed = {"mass": 1.4, "friction": 0.65}
    settings = EvalConfig(policy=str(tmp_path), dynamics=fixed, variations={"push": 2})
    assert default_folder(settings).name == "eval-push2-dynamics-friction0.65-mass1.4"
    task = SuiteTask(LIFT, dynamics=fixed)
    assert task.label == "Lift-dynamics-friction0.65-mass1.4"
    suite = Suite("both", tasks=(SuiteTask(LIFT), task), episodes=1)
    assert suite.settings(task, "expert").dynamics == fixed
    assert suite.hash != Suite("one", tasks=(SuiteTask(LIFT),), episodes=1).hash


def test_each_scaled_part_has_a_nominal_factor():
    assert {*SCALED, "delay"} == {*NAMES} == {*NOMINAL}
