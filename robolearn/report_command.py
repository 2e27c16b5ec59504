"""`robolearn report`: the HTML page of an evaluation."""

from pathlib import Path

from robolearn.options import ReportConfig
from robolearn.report import write_report


def main(config: ReportConfig) -> int:
    """Runs the command."""
    run = config.run or _run_of(config.evaluation)
    out = config.out or config.evaluation.parent / "report.html"
    write_report(config.evaluation, run, out, config.extra, max_videos=config.videos)
    print(f"{out} is ready; open it in a browser")
    return 0


def _run_of(evaluation: Path) -> Path | None:
    folder = evaluation.parent
    return folder if (folder / "log.jsonl").exists() else None
