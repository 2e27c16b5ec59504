"""What can happen to packets on their way between the host and the servos of the twin."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robolearn.hardware.twin_packets import Reply, status_packet

if TYPE_CHECKING:
    from robolearn.hardware.twin_arm import TwinArm


@dataclass
class Fault:
    """Something that can be switched on and off."""

    def begin(self, arm: "TwinArm") -> None:
        """Breaks something."""

    def end(self, arm: "TwinArm") -> None:
        """Mends it."""

    def hears(self, rng: random.Random) -> bool:
        """Whether an instruction reaches the servos."""
        del rng
        return True

    def alter(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """What becomes of a reply on its way to the host."""
        del rng
        return [reply]


@dataclass
class Unheard(Fault):
    """Instructions are lost."""

    one_in: float = 1.0  # how many there are for one that is lost, on average

    def hears(self, rng: random.Random) -> bool:
        """Loses some."""
        return rng.random() * self.one_in >= 1.0


@dataclass
class WireFault(Fault):
    """Hits some of the replies."""

    one_in: float = 1.0  # how many there are for one that is hit, on average
    servo: int | None = None  # only replies of this one
    times: int | None = None  # how many are hit in all; none: until it is switched off

    def alter(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Hits the reply, or lets it pass."""
        mine = self.servo in (None, reply.servo) and self.times != 0
        if not mine or rng.random() * self.one_in >= 1.0:
            return [reply]
        if self.times is not None:
            self.times -= 1
        return self.hit(reply, rng)

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """What becomes of a reply that is hit; here it is lost."""
        del reply, rng
        return []


class Drop(WireFault):
    """Replies are lost."""


class Corrupt(WireFault):
    """One bit of a reply is wrong."""

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Flips any bit."""
        data = bytearray(reply.data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return [reply._replace(data=bytes(data))]


class Truncate(WireFault):
    """A reply breaks off."""

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Keeps at least one byte and loses at least one."""
        return [reply._replace(data=reply.data[: rng.randrange(1, len(reply.data))])]


@dataclass
class Late(WireFault):
    """A reply, and what comes after it, is held up; it may come in during the next exchange."""

    seconds: float = 0.06

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Adds the delay."""
        del rng
        return [reply._replace(delay=reply.delay + self.seconds)]


class Duplicate(WireFault):
    """A reply comes twice."""

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Repeats it."""
        del rng
        return [reply, reply._replace(delay=0.0)]


class Noise(WireFault):
    """Random bytes stand before a reply."""

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Up to eight of them."""
        return [reply._replace(data=rng.randbytes(rng.randrange(1, 9)) + reply.data)]


class WrongId(WireFault):
    """A reply bears another servo's id, and is valid otherwise."""

    def hit(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """The next id."""
        del rng
        return [
            reply._replace(data=status_packet(reply.servo + 1, reply.data[4], reply.data[5:-1]))
        ]
