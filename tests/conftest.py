"""What holds for every test: one thread, no network, and one name for each module."""

import os
import socket
import subprocess
import sys

import hypothesis
import pytest

# Set before torch and huggingface_hub are first imported, and inherited by child processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

# The same examples in every run, and no verdict that depends on how busy the machine is.
hypothesis.settings.register_profile("robolearn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("robolearn")

BARE_NAMES = {"envs", "policies", "hardware"}
LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0"}


@pytest.fixture(scope="session", autouse=True)
def no_bare_imports():
    """`import envs` would make a second class object for each of robolearn.envs."""
    yield
    bare = sorted(name for name in sys.modules if name.partition(".")[0] in BARE_NAMES)
    assert not bare, f"import these from robolearn: {', '.join(bare)}"


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """A test that reaches for the network fails everywhere, not only where there is none."""
    connect = socket.socket.connect

    def connect_locally(self, address):
        if isinstance(address, tuple) and address[0] not in LOCAL_HOSTS:
            raise OSError(f"tests have no network, and this one connects to {address[0]}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        yield


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """A dataset of six demonstrations of the toy task; read only."""
    import toy

    return toy.record_demonstrations(tmp_path_factory.mktemp("toy") / "data", episodes=6)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory, toy_data):
    """A run that was trained on them for a few steps, so it knows nothing; read only."""
    import toy

    from robolearn.train import train

    run = tmp_path_factory.mktemp("toy") / "run"
    train(toy.train_config(toy_data, run))
    return run


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """Where `robolearn demo` was run on its smallest scale; leave runs/demo and results alone."""
    folder = tmp_path_factory.mktemp("demo")
    options = ["demo", "--preset", "tiny", "--results", "results"]
    command = [sys.executable, "-m", "robolearn", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "runs/demo/report.html is ready" in done.stdout
    return folder
