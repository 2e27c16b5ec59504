"""`Supervisor`: the state machine between what is asked of an arm and what its servos are told.

    disconnected <-> limp -> engaging -> engaged <-> hold -> parking -> limp

    any of them -> fault -> (`Verb.RESET_FAULT`) -> hold, or limp if the torque is off

The supervisor does no input or output and reads no clock. Once per control cycle it is given the
time, the reading of the servos and the request of the user, and returns what to write. So each of
its rules is tested without an arm, and a simulated arm runs behind the very same code.

What holds whatever happens:

- Consecutive goals keep the limits of `robolearn.hardware.limiter`; engaging starts at the pose in
  which the arm is.
- A goal is sent only if the arm can brake from it without leaving the workspace.
- After `Verb.STOP` the goal comes to rest and stays until somebody asks for more.
- A fault is latched: only `Verb.RESET_FAULT` ends it, and not while its cause is there.
- Limp means that there is no goal and no torque.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.limiter import Limits, units_per_rad
from robolearn.hardware.safety_goals import Inbox
from robolearn.hardware.safety_motion import SafeMotion, TorqueLimits
from robolearn.hardware.safety_types import (
    EXIT_VERB,
    PARK,
    REACTIONS,
    STOPPED,
    Command,
    Fault,
    Reaction,
    Reading,
    Request,
    SafetyConfig,
    State,
    Verb,
)
from robolearn.hardware.safety_watch import Watch

if TYPE_CHECKING:
    from robolearn.hardware.workspace import Workspace

__all__ = ["Command", "Fault", "Reading", "Request", "SafetyConfig", "State", "Supervisor", "Verb"]

OBJECTION_PAUSE: Final = 1.0  # s after which an objection of the workspace is news again


class Supervisor:
    """See the module's docstring. Call `tick` once per control cycle.

    Args:
        arm: the arm.
        config: the thresholds.
        dt: seconds per tick.
        workspace: what poses are allowed; None allows all.
        scale: units of `agent_pos` per rad, (J,); None: as `units_per_rad` has it.

    Attributes:
        state: what the arm does.
        fault: the latched fault, `Fault.NONE` if there is none.
        reason: why it is in this state, or why the last verb was refused.
        inbox: the goals that arrived.
        exiting: whether `exit` was called.

    Raises:
        ValueError: a parking pose of the wrong length.
    """

    def __init__(
        self,
        arm: ArmSpec,
        config: SafetyConfig,
        dt: float,
        workspace: "Workspace | None" = None,
        scale: np.ndarray | None = None,
    ) -> None:
        scale = units_per_rad(arm) if scale is None else np.abs(scale)
        self._park = np.array(PARK.get(arm.name, arm.home) if config.park is None else config.park)
        if self._park.shape != (arm.size,):
            raise ValueError(
                f"park has {self._park.size} numbers; {arm.name} has {arm.size} joints"
            )
        self.arm, self.config, self.inbox = arm, config, Inbox(arm, config)
        self._watch = Watch(arm, config, scale)
        self._motion = SafeMotion(arm, config, dt, workspace, scale)
        self._limits = TorqueLimits(arm, config, dt)
        self.state, self.fault, self.reason = State.DISCONNECTED, Fault.NONE, ""
        self.exiting = False
        self._reaction = Reaction.LIMP  # to the fault
        self._now = self._entered = 0.0  # s; the second: when the state or reaction began
        self._events: list[str] = []
        self._torque = self._confirmed = False  # what was commanded, what the servos say
        self._stopped = False  # by `STOP`: only a verb lets the arm move again
        self._alone_for = 0.0  # s that no program has been there to give one
        self._aim = self._park  # where `PARK` and `YIELD` go
        self._objected = -np.inf  # s, when the workspace last objected to a goal

    @property
    def limits(self) -> Limits:
        """What goals keep; a driver gives it to the servos, too."""
        return self._motion.limits

    @property
    def lost(self) -> int:
        """Cycles in a row without a usable reading."""
        return self._watch.lost

    @property
    def finished(self) -> bool:
        """Whether `exit` was called and the arm is as it shall be left."""
        held = self.config.on_exit == "hold" and self._motion.at_rest
        return self.exiting and (held or not self._torque)

    def exit(self, why: str = "the program ends") -> None:
        """Begins what `SafetyConfig.on_exit` says; the next ticks do that and nothing else."""
        self.exiting, self.reason = True, why

    def tick(self, now: float, reading: Reading | None, request: Request) -> Command:
        """One control cycle.

        Args:
            now: s, monotonic.
            reading: of this cycle; None if not all servos answered.
            request: what the user wants.
        """
        self._alone_for = self._alone_for + now - self._now if request.alone else 0.0
        self._now, self._events = now, []
        if self.exiting:
            verb = Verb.LIMP if request.verb is Verb.LIMP else EXIT_VERB[self.config.on_exit]
            request = Request(verb=verb, estop=request.estop)
        self._watch.receive(now, reading)
        self._check(request)
        self._obey(request)
        self._listen(request)
        self._proceed(now - self._entered)
        return self._command(request)

    # Faults.

    def _check(self, request: Request) -> None:
        if request.estop:
            self._trip(Fault.ESTOP, "the emergency stop is pressed")
        if self.lost == 1:
            self._say("a reading is missing")
        if not self._torque:
            return
        if self.lost > self.config.max_lost:
            self._trip(Fault.COMMUNICATION, f"{self.lost} readings in a row are missing")
        if self.lost:
            return
        goal, confirmed = self._motion.goal, self._confirmed
        for fault, words in self._watch.faults(self._now, goal, confirmed=confirmed):
            self._trip(fault, words)
        if warm := self._watch.newly_warm():
            self._say(warm)

    def _trip(self, fault: Fault, words: str) -> None:
        """Latches a fault, unless one with as strong a reaction is latched already."""
        reaction = REACTIONS[fault]
        if self._stopped:
            reaction = STOPPED.get(reaction, reaction)
        if self.state is State.ENGAGING or not self._torque:
            reaction = Reaction.LIMP
        if self.state is State.FAULT and reaction <= self._reaction:
            return
        self.fault = fault
        self._enter(State.FAULT, f"{fault}: {words}")
        self._react(reaction)

    def _react(self, reaction: Reaction) -> None:
        self._reaction, self._entered = reaction, self._now
        self._say(f"reaction: {reaction.name.lower()}")
        if reaction is Reaction.YIELD:
            self._aim = self._motion.rest(self._watch.reading.position)
        elif reaction is Reaction.PARK:
            self._aim = self._motion.rest(self._park)
        elif reaction is Reaction.LIMP:
            self._torque = self._confirmed = False

    def _reset_fault(self, request: Request) -> None:
        """Ends a fault whose cause is gone; the arm holds, or stays limp if it is."""
        if self.state is not State.FAULT:
            return
        goal = self._motion.goal if self._torque else None
        cause = self._watch.cause(goal, confirmed=self._confirmed)
        if why := "let go of the emergency stop" if request.estop else cause:
            self._refuse(f"reset refused: {why}")
            return
        self.fault, self._stopped = Fault.NONE, self._torque
        self._enter(State.HOLD if self._torque else State.LIMP, "fault reset")

    # Verbs.

    def _obey(self, request: Request) -> None:
        match request.verb:
            case Verb.ENGAGE:
                self._engage()
            case Verb.STOP:
                self._stop()
            case Verb.PARK:
                self._go_parking("asked to")
            case Verb.LIMP:
                self._go_limp("asked to")
            case Verb.RESET_FAULT:
                self._reset_fault(request)

    def _engage(self) -> None:
        """Torque on without a move, or back to work after a stop."""
        if self.state is State.ENGAGED:
            self.inbox.clear(self._now)  # or the next moment it may hold for want of a goal
        if self.state in {State.ENGAGING, State.ENGAGED}:
            return
        if why := self._why_not_engage():
            self._refuse(f"engaging refused: {why}")
            return
        self._stopped = False
        if self.state is State.HOLD:
            self._follow("asked to")
        else:
            self._watch.begin()
            self._enter(State.ENGAGING, "asked to")

    def _why_not_engage(self) -> str:
        if self.state is State.FAULT:
            return f"the fault {self.fault} is latched; reset it first"
        if self.state is State.PARKING:
            return "the arm is parking; wait or stop it"
        return self._watch.obstacle()

    def _stop(self) -> None:
        """Brake, and stay until somebody asks for more."""
        if self.state is State.ENGAGING:
            self._go_limp("stopped")
        elif self.state in {State.ENGAGED, State.HOLD, State.PARKING} and not self._stopped:
            self._enter(State.HOLD, "stopped")
        elif self.state is State.FAULT and self._reaction in STOPPED:
            self._react(Reaction.HOLD_LOW)
        self._stopped = self._torque

    def _go_parking(self, why: str) -> None:
        if self.state is State.ENGAGING:
            self._go_limp(why)
        elif self.state in {State.ENGAGED, State.HOLD}:
            self._aim = self._motion.rest(self._park)
            self._enter(State.PARKING, why)
        elif self.state is State.FAULT and self._reaction < Reaction.PARK:
            self._react(Reaction.LIMP if self.lost else Reaction.PARK)
        self._stopped = False

    def _go_limp(self, why: str) -> None:
        if self.state is State.FAULT:
            self._react(Reaction.LIMP)
        elif self.state not in {State.DISCONNECTED, State.LIMP}:
            self._enter(State.LIMP, why)

    # What goes on by itself.

    def _listen(self, request: Request) -> None:
        """Takes a goal, and decides between following and holding."""
        if self.state not in {State.ENGAGED, State.HOLD} or self._stopped:
            return
        if rejected := self.inbox.take(self._now, request):
            self._say(rejected)
        why = self.inbox.why_hold(self._now)
        if self.inbox.camera_is_dead:
            self._trip(Fault.CAMERA, why)
        elif why and self.state is State.ENGAGED:
            self._enter(State.HOLD, why)
        elif not why and self.state is State.HOLD:
            self._enter(State.ENGAGED, "goals arrive")

    def _proceed(self, held: float) -> None:
        """The transitions that time brings, `held` seconds after the last one."""
        match self.state:
            case State.DISCONNECTED if not self.lost:
                self._enter(State.LIMP, "the servos answer")
            case State.LIMP if self.lost > self.config.max_lost:
                self._enter(State.DISCONNECTED, "the servos do not answer")
            case State.ENGAGING:
                self._switch_on(held)
            case State.HOLD if not self._stopped and held >= self.config.hold_park:
                self._go_parking(f"nothing to do for {held:.0f} s")
            case State.HOLD if self._stopped and self._alone_for >= self.config.hold_park:
                self._go_limp("nobody is left to say what a stopped arm shall do")
            case State.PARKING if self._has_parked(held):
                self._enter(State.LIMP, "parked")
            case State.FAULT if self._reaction is Reaction.PARK and self._has_parked(held):
                self._react(Reaction.LIMP)
            case State.FAULT if (
                self._reaction < Reaction.PARK and held > self.config.fault_patience
            ):
                self._react(Reaction.LIMP if self._stopped or self.lost else Reaction.PARK)

    def _switch_on(self, held: float) -> None:
        """Goal and low torque limits in the first tick, the torque in the next, then the ramp."""
        reading = self._watch.reading
        if held > self.config.engage_seconds:
            self._trip(Fault.TORQUE_REFUSED, f"not all servos were on after {held:.1f} s")
        elif not self.lost and not self._torque:
            self._motion.reset(reading.position)
            self._torque = held > 0.0
        elif not self.lost and reading.torque is not None:
            self._confirmed = bool(reading.torque.all())
        if self._confirmed and self._limits.share >= 1.0:
            self._follow("the torque is on")

    def _follow(self, why: str) -> None:
        """Goals from now on count, none from before."""
        self.inbox.clear(self._now)
        self._enter(State.ENGAGED, why)

    def _has_parked(self, held: float) -> bool:
        there = self._motion.at_rest and bool((self._motion.goal == self._aim).all())
        return there or held >= self.config.parking

    # What goes out.

    def _command(self, request: Request) -> Command:
        target, share = self._plan()
        live = self._torque or self.state is State.ENGAGING
        goal = self._step(target) if live else None
        limit = self._limits.step(share, self._watch.reading.temperature)
        asked = request.goal
        return Command(
            goal=goal,
            torque_enable=self._torque,
            torque_limit=limit,
            state=self.state,
            fault=self.fault,
            limited=asked is not None and (goal is None or not np.array_equal(goal, asked)),
            events=tuple(self._events),
        )

    def _plan(self) -> tuple[np.ndarray | None, float]:
        """Where to go, None to brake and stay, and which share of the torque limits to use."""
        low = self.config.hold_torque
        match self.state:
            case State.ENGAGED:
                return self.inbox.goal, 1.0
            case State.HOLD:
                return None, 1.0 if self._now - self._entered < self.config.hold_relax else low
            case State.PARKING:
                return self._aim, 1.0
            case State.FAULT if self._torque:
                moves = self._reaction in {Reaction.YIELD, Reaction.PARK}
                return self._aim if moves else None, low
        return None, 1.0 if self._torque else self.config.engage_torque

    def _step(self, target: np.ndarray | None) -> np.ndarray:
        """The goal of this tick; without a reading the arm brakes."""
        detour = self.state is not State.ENGAGED
        goal = self._motion.step(None if self.lost else target, detour=detour)
        if objection := self._motion.objection:
            if self._now - self._objected > OBJECTION_PAUSE:
                self._refuse(f"held back: {objection}")
            self._objected = self._now
        return goal

    # Bookkeeping.

    def _enter(self, state: State, why: str) -> None:
        self._say(f"{self.state} -> {state}: {why}")
        self.state, self.reason, self._entered = state, why, self._now
        if state is State.LIMP:
            self._torque = self._confirmed = False

    def _refuse(self, why: str) -> None:
        self.reason = why
        self._say(why)

    def _say(self, event: str) -> None:
        self._events.append(event)
