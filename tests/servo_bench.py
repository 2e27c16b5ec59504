"""What the tests of the twin's servos share."""

from robolearn.hardware.registers import Register
from robolearn.hardware.twin_packets import PacketReader, answer
from robolearn.hardware.twin_servo import Sensed, Servo

DT = 0.005
AT = Sensed(encoder=2048)
PAN_AND_LIFT = (1, 2)


def make(servo_id=1, sensed=AT, **registers):
    named = {Register[name]: value for name, value in registers.items()}
    servo = Servo({Register.ID: servo_id, Register.RETURN_DELAY: 0, **named})
    servo.sensed = sensed
    servo.power_on()
    return servo


def packet(text):
    """The bytes of a packet of which only the checksum is left out."""
    body = bytes.fromhex(text)
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def talk(servos, data, reader=None):
    """What the servos send back, as hex."""
    servos = servos if isinstance(servos, list) else [servos]
    packets = (reader or PacketReader()).feed(data)
    replies = [reply for p in packets for reply in answer(servos, p)]
    return b"".join(reply.data for reply in replies).hex(" ")


def run(servo, seconds, sensed=AT):
    """Lets time pass; the last drive."""
    for _ in range(round(seconds / DT)):
        drive = servo.step(DT, sensed)
    return drive


def switched_on(servo, **registers):
    servo[Register.TORQUE_ENABLE] = 1
    for name, value in registers.items():
        servo[Register[name]] = value
    return servo
