"""An evaluation as one types it: the command that makes it again, and a suite of its dynamics."""

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from robolearn.options import WORKERS, EvalConfig

NOT_TYPED: Final = ("out", "videos", *WORKERS)  # change no episode


def eval_command(settings: EvalConfig) -> str:
    """The command that makes an evaluation again, with all that is not a default."""
    words = ["robolearn", "eval"]
    for option in (f for f in fields(settings) if f.name not in NOT_TYPED):
        value, name = getattr(settings, option.name), option.name.replace("_", "-")
        if value is None or value == _default(option):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *_typed(value)]
    return shlex.join(words)


def _default(option: Field[Any]) -> Any:  # noqa: ANN401 (an option's; MISSING without one)
    return option.default if option.default_factory is MISSING else option.default_factory()


def _typed(value: Any) -> list[str]:  # noqa: ANN401 (an option's)
    if isinstance(value, dict):
        return [str(word) for pair in value.items() for word in pair]
    return [str(word) for word in (value if isinstance(value, tuple) else (value,))]


def suite_of(settings: EvalConfig) -> str:
    """A suite of the task with its own dynamics and with the settings' ones, for other agents."""
    same = f'env = "{settings.env}", split = "{settings.split}"'
    if settings.variations:
        same += f", variations = {_inline(settings.variations)}"
    lines = [
        'title = "nominal dynamics, and those at which one policy did worst"',
        f"episodes = {settings.episodes}",
        f"seed = {settings.seed}",
        f"replan_every = {settings.replan_every}",
        f'paraphrases = "{settings.paraphrases}"',
        "tasks = [",
        f"    {{ {same} }},",
        f"    {{ {same}, dynamics = {_inline(settings.dynamics)} }},",
        "]",
    ]
    return "\n".join(lines) + "\n"


def _inline(values: Mapping[str, Any]) -> str:
    return f"{{ {', '.join(f'{name} = {value}' for name, value in values.items())} }}"
