"""`robolearn bench list`: the suites, what is in them, and their hashes."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class BenchListConfig:
    """List the suites."""


def main(config: BenchListConfig) -> int:
    """Prints a table of the suites."""
    from robolearn.bench.suite import load_suite, suite_names

    del config
    table = Table("suite", "tasks", "episodes each", "hash", "what it is")
    for suite in map(load_suite, suite_names()):
        count, episodes = str(len(suite.tasks)), str(suite.episodes)
        table.add_row(suite.name, count, episodes, suite.hash, suite.title)
    Console().print(table)
    return 0
