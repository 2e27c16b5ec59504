"""What a result file says of the code that wrote it."""

import subprocess

import pytest

from robolearn import results


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout of two files that are taken for the code and a result."""
    module, result = tmp_path / "robolearn" / "results.py", tmp_path / "docs" / "results" / "x.json"
    for path in (module, result):
        path.parent.mkdir(parents=True)
        path.write_text("1\n")
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    monkeypatch.setattr(results, "__file__", str(module))
    return module, result


def test_changed_code_has_a_plus_and_a_new_result_does_not(checkout):
    module, result = checkout
    clean = results.revision()
    assert len(clean) == 12
    result.write_text("2\n")
    assert results.revision() == clean
    module.write_text("2\n")
    assert results.revision() == clean + "+"
