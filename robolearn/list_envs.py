"""`robolearn envs`: the environments, and what their tasks are."""

from importlib import import_module

import gymnasium
from rich.console import Console
from rich.table import Table

from robolearn.registry import env_ids


def main() -> int:
    """Prints a table of ids, time limits and the first line of each task's docstring."""
    table = Table("environment", "time limit", "task")
    for name in env_ids():
        spec = gymnasium.spec(name)
        module = import_module(str(spec.entry_point).partition(":")[0])
        summary = (module.__doc__ or "").partition("\n")[0].partition(": ")[2]
        table.add_row(name, f"{spec.max_episode_steps} steps", summary)
    Console().print(table)
    return 0
