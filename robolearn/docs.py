"""`python -m robolearn.docs`: writes the tables of the documents.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`. Figures come from
docs/results/*.json, which the measuring commands write; commands, presets and aims come from the
code. Nobody types a number into a table, and what no result file holds is "not measured yet".
"""

import json
import re
import sys
from pathlib import Path
from typing import Final

from robolearn.bench import act2goal_tables, aloe_tables, foreign_tables, tables, taco_tables
from robolearn.bench.tables import Result, Results, Rows
from robolearn.files import write_atomic

TABLES: Final = (
    tables.TABLES
    | taco_tables.TABLES
    | aloe_tables.TABLES
    | act2goal_tables.TABLES
    | foreign_tables.TABLES
)
RESULTS: Final = Path("docs/results")
OPEN: Final = re.compile(r"^<!-- table:", re.MULTILINE)
TABLE: Final = re.compile(
    r"(?P<open>^<!-- table:(?P<name>[\w-]+) -->\n).*?(?P<close>^<!-- /table -->$)",
    re.MULTILINE | re.DOTALL,
)


class DocsError(ValueError):
    """Documents that cannot be written; the message says what to do."""


def load_results(folder: Path) -> dict[str, Result]:
    """All result files of a folder by name; none where there is no folder.

    Raises:
        DocsError: a damaged file.
    """
    results = {}
    for path in sorted(folder.glob("*.json")):
        try:
            results[path.stem] = json.loads(path.read_text())
        except ValueError as error:
            raise DocsError(f"{path} is damaged ({error}): measure again") from error
    return results


def render(text: str, results: Results) -> str:
    """The document with its tables written anew.

    Raises:
        DocsError: a table without an end, or of an unknown name.
    """
    if len(OPEN.findall(text)) != len(TABLE.findall(text)):
        raise DocsError("a table has no end: close every one with <!-- /table --> on its own line")

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise DocsError(f"no table {name!r}; there are {', '.join(TABLES)}")
        return f"{match['open']}{_markdown(TABLES[name](results))}{match['close']}"

    return TABLE.sub(fill, text)


def documents(root: Path) -> list[Path]:
    """The documents of a checkout, README first.

    Raises:
        DocsError: not a checkout.
    """
    if not (root / "README.md").is_file():
        raise DocsError(f"{root} has no README.md; run this in the root of the checkout")
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def update(root: Path) -> list[Path]:
    """Rewrites the documents whose tables are out of date, and returns them.

    Raises:
        DocsError: a damaged result file or document.
    """
    results, changed = load_results(root / RESULTS), []
    for path in documents(root):
        old = path.read_text()
        new = render(old, results)
        if new != old:
            write_atomic(path, new.encode())
            changed.append(path)
    return changed


def main() -> int:
    """Runs the command in the root of a checkout."""
    try:
        changed = update(Path.cwd())
    except (DocsError, OSError) as error:
        print(f"robolearn.docs: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {path.name}" for path in changed) or "all tables are up to date")
    return 0


def _markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(cell or " " for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
