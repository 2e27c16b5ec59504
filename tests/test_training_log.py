"""What a training run keeps, and how it is stopped."""

import json
import os
import signal

import pytest
import toy
from test_resume import log_of

from robolearn.training_log import Interrupt, TrainingLog, seconds_until


def test_a_second_ctrl_c_stops_at_once():
    def interrupt_twice():
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.seen == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_log_keeps_means_over_its_interval(tmp_path, toy_data):
    config = toy.train_config(toy_data, tmp_path, steps=7, log_every=3)
    with TrainingLog(config, 0) as log:
        for step in range(1, 8):
            log.add(step, {"loss": float(step), "flow/loss": 1.0})
    lines = log_of(tmp_path)
    assert [(line["step"], line["loss"]) for line in lines] == [(3, 2.0), (6, 5.0), (7, 7.0)]
    assert [line["samples"] for line in lines] == [24, 48, 56]


def test_the_time_until_a_step_stands_in_the_log(tmp_path):
    assert seconds_until(tmp_path, 4) is None
    lines = [{"step": 2, "seconds": 1.5}, {"step": 4, "seconds": 3.0}, {"step": 6, "seconds": 4.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [seconds_until(tmp_path, step) for step in (1, 4, 5, 9)] == [None, 3.0, 3.0, 4.0]
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "sec')  # torn by a crash
    assert seconds_until(tmp_path, 9) == 4.0


@pytest.mark.parametrize("damage", ['{"step": 2, "lo', "3", "[]", "null", '{"loss": 1}'])
def test_lines_that_a_crash_tore_are_dropped(tmp_path, toy_data, damage):
    good = '{"step": 1, "loss": 0.5}\n'
    (tmp_path / "log.jsonl").write_text(good + '{"step": 9, "loss": 0.1}\n' + damage)
    with TrainingLog(toy.train_config(toy_data, tmp_path), 2):
        pass
    assert (tmp_path / "log.jsonl").read_text() == good
