"""What client, guardian and driver process tell each other, in shared memory.

| record | writer | what |
|---|---|---|
| `status` | driver | what the arm does, after every cycle |
| `request` | client | the goal, and verbs: one-shot commands such as engage or park |
| `guard` | guardian | whether the client is gone |
"""

import threading
from pathlib import Path
from typing import Any, Final

import numpy as np

from robolearn.hardware.safety_types import Request, Verb
from robolearn.hardware.shared import Record

# Upper ends of the histogram's bins, ms, each a quarter above the last; one more takes the rest.
LATENESS_EDGES: Final = tuple(round(0.05 * 10 ** (k / 10), 4) for k in range(31))
TEXT: Final = 240  # bytes of a sentence


def _status_fields(joints: int) -> list[tuple]:
    vector = np.float64, (joints,)
    return [
        ("cycle", np.int64),
        ("verbs", np.int64),  # how many of the client's verbs were seen
        ("time", np.float64),  # s, of the driver's clock
        ("state", "S16"),
        ("fault", "S24"),
        ("reason", f"S{TEXT}"),  # why the last request was refused, or the fault in words
        ("position", *vector),  # contract units, like all of these
        ("velocity", *vector),
        ("effort", *vector),
        ("goal", *vector),  # as last sent to the servos
        ("current", *vector),  # A
        ("voltage", *vector),  # V
        ("temperature", *vector),  # deg C
        ("alarms", np.uint8, (joints,)),
        ("torque", np.bool_),
        ("age", np.float64),  # s since the servos last answered
        ("limited", np.int64),  # cycles so far in which a goal was not executed as asked
        ("lost", np.int64),  # cycles so far without an answer of all servos
        ("missed", np.int64),  # ticks so far that were skipped
        ("lateness", np.int64, (len(LATENESS_EDGES) + 1,)),  # cycles by how late they began
    ]


def _request_fields(joints: int) -> list[tuple]:
    return [
        ("goal", np.float64, (joints,)),
        ("has_goal", np.bool_),
        ("goal_time", np.float64),  # s, of the driver's clock
        ("camera_age", np.float64),  # s, of the oldest picture
        ("verb", np.int64),
        ("verbs", np.int64),  # how many verbs there were so far
        ("permitted", np.int64),  # cycles so far, in lockstep
        ("closing", np.bool_),  # the client has what it wanted
    ]


class Channel:
    """Shared memory between client, guardian and driver.

    Args:
        folder: where it is, private to this user; whoever comes first fills it.
        joints: J.
    """

    def __init__(self, folder: Path, joints: int) -> None:
        self.status = Record(folder / "status", _status_fields(joints))
        self._request = Record(folder / "request", _request_fields(joints))
        # Of its own, so that no goal that is being written can undo it.
        self._estop = Record(folder / "estop", [("pressed", np.bool_)])
        self._guard = Record(folder / "guard", [("orphaned", np.bool_)])
        self._lock = threading.Lock()
        self._verbs = 0  # posted, or seen: each side counts its own
        self._permitted = 0

    # The client's side.

    def _post(self, **values: Any) -> None:  # noqa: ANN401
        with self._lock:  # other threads of the client may ask for something, too
            self._request.write(**values)

    def ask(self, verb: Verb) -> int:
        """Posts a verb, which ends all goals; returns its number, see `verbs` of the status."""
        self._verbs += 1
        self._post(verb=verb, verbs=self._verbs, has_goal=False)
        return self._verbs

    def permit(self, cycles: int) -> None:
        """Lets a driver in lockstep run some more cycles."""
        self._permitted += cycles
        self._post(permitted=self._permitted)

    def set_goal(self, goal: np.ndarray, time: float, camera_age: float) -> None:
        """Posts joint targets (J,), contract units."""
        self._post(goal=goal, goal_time=time, camera_age=camera_age, has_goal=True)

    def set_estop(self, *, pressed: bool) -> None:
        """Presses or lets go of the emergency stop."""
        self._estop.write(pressed=pressed)

    def close(self) -> None:
        """Tells the driver to put the arm to rest and to end."""
        self._post(closing=True)

    # The guardian's side.

    def orphan(self) -> None:
        """Tells the driver that the client has died."""
        self._guard.write(orphaned=True)

    # The driver's side.

    def is_orphaned(self) -> bool:
        """Whether the client has died."""
        return bool(self._guard.read()["orphaned"])

    def is_closing(self) -> bool:
        """Whether the client is done."""
        return bool(self._request.read()["closing"])

    def permitted(self) -> int:
        """How many cycles the client has permitted so far, in lockstep."""
        return int(self._request.read()["permitted"])

    def request(self) -> Request:
        """What the client wants now; a verb is seen once."""
        record = self._request.read()
        fresh = record["verbs"] != self._verbs
        self._verbs = int(record["verbs"])
        verb = Verb(int(record["verb"])) if fresh else Verb.NONE
        return Request(
            goal=record["goal"] if record["has_goal"] else None,
            goal_time=float(record["goal_time"]),
            verb=verb,
            estop=bool(self._estop.read()["pressed"]),
            camera_age=float(record["camera_age"]),
        )

    def report(self, **values: Any) -> None:  # noqa: ANN401
        """Publishes the status; text is cut to what fits."""
        encoded = {k: v.encode() if isinstance(v, str) else v for k, v in values.items()}
        self.status.write(**encoded, verbs=self._verbs)
