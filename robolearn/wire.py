"""The wire format of remote policies: msgpack, with numpy arrays as openpi's client packs them.

An array is the map {b"__ndarray__": true, b"data": bytes, b"dtype": "<f4", b"shape": [..]}, a numpy
scalar {b"__npgeneric__": true, b"data": value, b"dtype": ..}. Only numbers and booleans travel so;
nothing is ever unpickled. Whatever arrives is checked before memory is taken for it.
"""

import math
from typing import Any, Final

import msgpack
import numpy as np

KINDS: Final = "biuf"  # numpy's kinds of dtype that travel: booleans, integers, floats
MAX_DIMENSIONS: Final = 8


class WireError(ValueError):
    """A message that is not one of ours; says what is wrong with it."""


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes.

    Raises:
        WireError: it holds something that does not travel, such as an array of objects.
    """
    try:
        return msgpack.packb(message, default=_pack_numpy)
    except (TypeError, OverflowError, ValueError) as error:
        raise WireError(f"this cannot be sent: {error}") from error


def unpack(data: bytes) -> dict[str, Any]:
    """The message in the bytes; its arrays are read-only.

    Raises:
        WireError: the bytes are no such message.
    """
    try:
        message = msgpack.unpackb(data, object_hook=_unpack_numpy)
    except WireError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"not a msgpack message ({type(error).__name__}: {error})") from error
    if not isinstance(message, dict):
        raise WireError(f"a message is a map, and this is {type(message).__name__}")
    return message


def _pack_numpy(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in KINDS:
        raise TypeError(f"an array of {value.dtype}")
    if isinstance(value, np.ndarray):
        shape = list(value.shape)
        data = value.tobytes()
        return {b"__ndarray__": True, b"data": data, b"dtype": value.dtype.str, b"shape": shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__}")


def _unpack_numpy(value: dict[Any, Any]) -> object:
    if b"__ndarray__" in value:
        return _array(value.get(b"data"), _dtype(value.get(b"dtype")), value.get(b"shape"))
    if b"__npgeneric__" in value:
        number = value.get(b"data")
        if not isinstance(number, int | float):
            raise WireError(f"a numpy scalar holds a number, and this holds {number!r:.40}")
        try:
            return _dtype(value.get(b"dtype")).type(number)
        except OverflowError as error:
            raise WireError(f"{number!r:.40} is too large for its dtype") from error
    return value


def _dtype(name: object) -> np.dtype:
    """The dtype of this name, if it is one of numbers."""
    if isinstance(name, bytes):  # as other languages may write it
        name = name.decode("ascii", "replace")
    if isinstance(name, str) and len(name) <= 3 and name[1:2] in KINDS:
        try:
            return np.dtype(name)
        except TypeError:
            pass
    raise WireError(f"no such dtype here: {name!r:.40}; booleans, integers and floats travel")


def _array(data: object, dtype: np.dtype, shape: object) -> np.ndarray:
    """The array of these bytes; copies nothing."""
    sizes = list(shape) if isinstance(shape, list | tuple) else [-1]
    if len(sizes) > MAX_DIMENSIONS or not all(isinstance(n, int) and n >= 0 for n in sizes):
        raise WireError(f"an array's shape is a short list of sizes, and this is {shape!r:.40}")
    if not isinstance(data, bytes) or len(data) != math.prod(sizes) * dtype.itemsize:
        raise WireError(f"the bytes of an array do not fill its shape {sizes} of {dtype}")
    return np.frombuffer(data, dtype).reshape(sizes)


def noise_to(generator: np.random.Generator) -> list[str]:
    """Where a generator of `robolearn.seeding.stream` stands, as words."""
    state = generator.bit_generator.state["state"]
    return [f"{state['state']:x}", f"{state['inc']:x}"]


def noise_from(words: object) -> np.random.Generator:
    """The generator that `noise_to` describes.

    Raises:
        WireError: they describe none.
    """
    wrong = WireError("noise must be two hexadecimal words, state and increment")
    if not isinstance(words, list) or not all(isinstance(w, str) and len(w) <= 32 for w in words):
        raise wrong
    try:
        state, step = (int(word, 16) for word in words)
    except ValueError as error:
        raise wrong from error
    generator = np.random.PCG64()
    generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": step | 1},
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(generator)
