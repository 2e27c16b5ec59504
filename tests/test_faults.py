"""The fault matrix: whatever breaks, the servos end as the row says, and the arm works again."""

import pytest

from robolearn.hardware.fault_matrix import MATRIX
from robolearn.hardware.fault_rig import Rig
from robolearn.hardware.fault_trial import trial
from robolearn.hardware.safety_types import SafetyConfig

IMPATIENT = SafetyConfig(hold_park=1.0)  # s; the default is seven


@pytest.fixture(scope="module")
def rigs(tmp_path_factory):
    """One rig on each clock, started when it is first needed."""
    opened = {}

    def rig(*, realtime):
        if realtime not in opened:
            folder = tmp_path_factory.mktemp("rig")
            opened[realtime] = Rig(folder, realtime=realtime, safety=IMPATIENT)
        return opened[realtime]

    yield rig
    for each in opened.values():
        each.close()


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.realtime] * row.realtime) for row in MATRIX],
    ids=lambda row: f"{row.group}: {row.name}",
)
def test_the_arm_ends_safe_and_works_again(rigs, row):
    outcome = trial(row, rigs(realtime=row.realtime))
    assert outcome.problems == ()
