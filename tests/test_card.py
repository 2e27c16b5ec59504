"""Model cards: what the hub reads, and only evaluations of this very checkpoint."""

import shutil
from pathlib import Path

import pytest
import toy
import yaml

from robolearn import checkpoint
from robolearn.card import CardConfig, write_card
from robolearn.evaluate import evaluate
from robolearn.options import EvalConfig


@pytest.fixture(scope="module")
def measured(tmp_path_factory, toy_run):
    """A run with an evaluation of its newest checkpoint, and one of an older one."""
    run = Path(shutil.copytree(toy_run, tmp_path_factory.mktemp("card") / "run"))
    plain = {"env": toy.ENV_ID, "episodes": 3, "replan_every": 2, "videos": 0, "workers": 0}
    evaluate(EvalConfig(policy=str(run), **plain))
    shutil.copytree(checkpoint.resolve(run), run / "other")
    evaluate(EvalConfig(policy=str(run / "other"), out=run / "other" / "eval", **plain))
    return run


def read(path):
    _, head, body = path.read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_card_has_a_head_and_the_evaluations_of_its_checkpoint(measured):
    head, body = read(write_card(CardConfig(measured, licence="apache-2.0")))
    assert (head["library_name"], head["pipeline_tag"]) == ("robolearn", "robotics")
    assert (head["license"], head["tags"][:3]) == ("apache-2.0", ["robotics", "robolearn", "flow"])
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["name"] == toy.ENV_ID
    assert result["metrics"][0]["value"] == 0.0
    rows = [line for line in body.splitlines() if line.startswith(f"| {toy.ENV_ID}")]
    assert len(rows) == 1
    assert "| 0.0 % | 0.0 % to 56.2 % | 3 | 0 to 2 |" in rows[0]
    assert "joints left, right, grip" in body
    assert "`top` at 12 x 16 pixels" in body
    assert "trained for 4 steps of 8 samples on `data`" in body


def test_the_hub_can_read_it(measured):
    """By its own library, which checks the model index."""
    from huggingface_hub import ModelCard

    card = ModelCard.load(write_card(CardConfig(measured)))
    assert card.data.library_name == "robolearn"
    assert card.data.eval_results[0].metric_type == "success_rate"
    assert card.data.eval_results[0].dataset_name == toy.ENV_ID


def test_evaluations_of_another_checkpoint_are_refused(measured, tmp_path):
    settings = CardConfig(measured, evaluations=(measured / "other" / "eval",))
    with pytest.raises(ValueError, match="is an evaluation of .*other, not of"):
        write_card(settings)
    with pytest.raises(ValueError, match="cannot be read"):
        write_card(CardConfig(measured, evaluations=(tmp_path,)))


def test_without_evaluations_it_says_so(toy_run, tmp_path):
    out = write_card(CardConfig(toy_run, out=tmp_path / "card.md"))
    head, body = read(out)
    assert "model-index" not in head
    assert "Nothing yet" in body
