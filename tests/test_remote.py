"""`robolearn serve` and its clients: ours, openpi's, broken ones and hostile ones."""

import asyncio
import json
import ssl
import subprocess
import sys
import threading
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from robolearn import wire
from robolearn.ask import request_of
from robolearn.evaluate import evaluate
from robolearn.options import TOKEN, EvalConfig, ServeConfig
from robolearn.policies.base import Overlap, as_tensors
from robolearn.policies.scorers import UNFITTED
from robolearn.remote import RemoteError, RemoteSource
from robolearn.seeding import stream
from robolearn.serve import PolicyServer
from robolearn.sources import source_of


@contextmanager
def serving(policy, **options):
    """The address of a server that runs in a thread."""
    server = PolicyServer(ServeConfig(policy=str(policy), port=0, **options))
    loop = asyncio.new_event_loop()
    ready = loop.create_future()
    started, port = threading.Event(), []
    ready.add_done_callback(lambda told: (port.append(told.result()), started.set()))
    task = loop.create_task(server.run(ready))

    def run():
        asyncio.set_event_loop(loop)
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    try:
        yield f"{'wss' if options.get('certificate') else 'ws'}://localhost:{port[0]}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


@pytest.fixture
def server(toy_run):
    with serving(toy_run) as url:
        yield url


def an_observation(seed=0, batch=1):
    rng = np.random.default_rng(seed)
    pictures = {
        name: rng.integers(0, 256, (batch, *size, 3), dtype=np.uint8)
        for name, size in toy.CAMERAS.items()
    }
    return {"agent_pos": rng.normal(size=(batch, 3)).astype(np.float32), "pixels": pictures}


def a_message(**changes):
    observation = an_observation()
    pictures = {name: picture[0] for name, picture in observation["pixels"].items()}
    message = {"agent_pos": observation["agent_pos"][0], "pixels": pictures}
    return {**message, "prompt": toy.INSTRUCTIONS[0], **changes}


def chunks_of(policy, observation, n=1):
    with torch.inference_mode():
        context = policy.encode(as_tensors(observation, "cpu"), [toy.INSTRUCTIONS[0]])
        return policy.sample(context, n, [stream(5, "noise")])


class TestWire:
    @pytest.mark.parametrize("dtype", ["?", "u1", "<i4", "<i8", "<f2", "<f4", "<f8", ">f4"])
    def test_arrays_come_back_as_they_were(self, dtype):
        array = np.arange(6).reshape(2, 3).astype(dtype)
        back = wire.unpack(wire.pack({"a": array, "nested": {"b": array[0]}}))
        assert back["a"].dtype == array.dtype
        assert np.array_equal(back["a"], array)
        assert np.array_equal(back["nested"]["b"], array[0])

    def test_scalars_and_the_rest(self):
        message = {"x": np.float32(0.5), "text": "ä", "list": [1, None, True], "data": b"\x00"}
        back = wire.unpack(wire.pack(message))
        assert back["x"] == np.float32(0.5)
        assert back["x"].dtype == np.float32
        assert [back[k] for k in ("text", "list", "data")] == ["ä", [1, None, True], b"\x00"]

    @pytest.mark.parametrize("value", [np.array([{}], object), np.array([1j]), object()])
    def test_what_does_not_travel(self, value):
        with pytest.raises(wire.WireError, match="cannot be sent"):
            wire.pack({"a": value})

    @pytest.mark.parametrize(
        "array",
        [
            {b"data": b"\x00" * 4, b"dtype": "<f4", b"shape": [2]},
            {b"data": b"\x00" * 4, b"dtype": "<f4", b"shape": [2**62, 2**62]},
            {b"data": b"\x00" * 4, b"dtype": "<f4", b"shape": [-1]},
            {b"data": b"\x00" * 4, b"dtype": "O", b"shape": [1]},
            {b"data": b"\x00" * 4, b"dtype": "V4", b"shape": [1]},
            {b"data": b"\x00" * 4, b"dtype": "<f9", b"shape": [1]},
            {b"data": 4, b"dtype": "<f4", b"shape": [1]},
            {b"data": b"", b"dtype": "<f4", b"shape": [0] * 40},
            {},
        ],
    )
    def test_arrays_that_are_none(self, array):
        message = wire.msgpack.packb({"a": {b"__ndarray__": True, **array}})
        with pytest.raises(wire.WireError):
            wire.unpack(message)

    @given(st.binary(max_size=200))
    @settings(max_examples=300, deadline=None)
    def test_any_bytes_are_a_message_or_refused(self, data):
        try:
            assert isinstance(wire.unpack(data), dict)
        except wire.WireError as error:
            assert str(error)  # noqa: PT017 (both ends are right)

    def test_deep_nesting_is_refused(self):
        with pytest.raises(wire.WireError):
            wire.unpack(b"\x81\xa1a" * 5000 + b"\xc0")


def test_noise_travels():
    generator = stream(7, "policy 3")
    there = wire.noise_from(wire.noise_to(generator))
    assert np.array_equal(there.standard_normal(9), generator.standard_normal(9))


@pytest.mark.parametrize("words", [None, "ab", 3, ["x", "y"], ["1"], [1, 2, 3], {"a": 1}])
def test_noise_that_is_none(words):
    with pytest.raises(wire.WireError, match="two hexadecimal words"):
        wire.noise_from(words)


class TestOurClient:
    @pytest.mark.parametrize("n", [1, 3])
    def test_the_chunks_are_those_of_the_policy_here(self, toy_run, server, n):
        here, there = source_of(toy_run).load(), source_of(server).load()
        ours, theirs = (chunks_of(policy, an_observation(), n) for policy in (here, there))
        assert torch.equal(ours.actions, theirs.actions)
        assert torch.equal(ours.features, theirs.features)
        assert there.horizon == here.horizon
        assert there.cameras == here.cameras
        assert torch.equal(there.spread, here.spread)

    @pytest.mark.parametrize("delay", [0, 1])
    def test_an_evaluation_over_the_wire_is_the_same(self, toy_run, server, tmp_path, delay):
        options = {"env": toy.ENV_ID, "episodes": 4, "replan_every": 2, "delay": delay}
        options |= {"videos": 0, "workers": 0}
        results = [
            evaluate(EvalConfig(policy=str(policy), out=tmp_path / str(k), **options))
            for k, policy in enumerate((toy_run, server))
        ]
        ours, theirs = (
            [(e["success"], e["length"], e["progress"]) for e in result["episodes"]]
            for result in results
        )
        assert ours == theirs

    def test_chunks_are_refined_there_as_here(self, toy_run, server):
        shown = torch.randn(1, 3, toy.TINY.horizon, 3)
        refined = []
        with torch.inference_mode():
            for policy in (source_of(where).load() for where in (toy_run, server)):
                seen = as_tensors(an_observation(), "cpu")
                context = policy.encode(seen, [toy.INSTRUCTIONS[0]])
                refined.append(policy.refine(context, shown, [stream(0, "x")], 0.5))
        here, there = refined
        assert torch.equal(here.actions, there.actions)
        assert torch.equal(here.features, there.features)
        assert not torch.allclose(here.actions, shown)

    def test_chunks_under_way_are_followed_there_as_here(self, toy_run, server, monkeypatch):
        overlap = Overlap(np.full((4, 3), 0.4, np.float32), np.array([1, 1, 0.5, 0], np.float32))

        def followed(policy):
            with torch.inference_mode():
                seen = as_tensors(an_observation(), "cpu")
                context = policy.encode(seen, [toy.INSTRUCTIONS[0]])
                plain = policy.sample(context, 3, [stream(0, "x")])
                found = policy.follow(context, 3, [stream(0, "x")], [overlap])
            assert not torch.allclose(found.actions, plain.actions)
            return found

        here, there = (followed(source_of(where).load()) for where in (toy_run, server))
        assert torch.equal(here.actions, there.actions)
        assert torch.equal(here.features, there.features)
        older = source_of(server).load()  # a server that says nothing of it is not asked for it
        greeting = {k: v for k, v in older._connection.greeting.items() if k != "follows"}
        monkeypatch.setattr(older._connection, "greeting", greeting)
        blended = followed(older).actions
        assert (blended[0, :, :2] == 0.4).all()
        assert not torch.equal(blended, here.actions)

    def test_each_of_those_answered_together_follows_its_own_plan(self, toy_run):
        server = PolicyServer(ServeConfig(policy=str(toy_run)))

        def ask(planned):
            overlap = {"actions": np.full((4, 3), planned), "weights": np.ones(4)}
            message = a_message(overlap=overlap, noise=wire.noise_to(stream(0, "x")))
            return request_of(message, server._policy)

        assert ask(0.5).kind == ask(-0.5).kind
        together = server._infer([ask(0.5), ask(-0.5)], 1)
        alone = [server._infer([ask(planned)], 1)[0] for planned in (0.5, -0.5)]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one["actions"], other["actions"], atol=1e-4)
        assert together[0]["actions"].mean() > together[1]["actions"].mean() + 0.1

    def test_every_scorer_chooses_there_as_here(self, toy_run, server, tmp_path):
        options = {"env": toy.ENV_ID, "episodes": 2, "videos": 0, "workers": 0, "replan_every": 2}
        for scorer in UNFITTED:
            ours, theirs = (
                evaluate(
                    EvalConfig(
                        policy=str(policy),
                        out=tmp_path / f"{scorer}{k}",
                        scorer=scorer,
                        candidates=5,
                        **options,
                    )
                )
                for k, policy in enumerate((toy_run, server))
            )
            for here, there in zip(ours["episodes"], theirs["episodes"], strict=True):
                assert (here["length"], here["progress"]) == (there["length"], there["progress"])

    def test_another_arm_is_refused(self, server):
        policy = source_of(server).load()
        other = replace(toy.TOY_ARM, joints=("a", "b", "c"))
        with pytest.raises(ValueError, match="the policy was trained on toy with joints"):
            policy.check_fits(other, toy.Toy().observation_space)

    def test_nobody_there(self):
        with pytest.raises(RemoteError, match="does not answer .*; start it with: robolearn serve"):
            source_of("ws://localhost:9").load()

    def test_a_server_that_comes_back(self, toy_run):
        with serving(toy_run) as url:
            policy = source_of(url).load()
            first = chunks_of(policy, an_observation())
            policy._connection._socket.close()  # as a restart of the server does
            assert torch.equal(chunks_of(policy, an_observation()).actions, first.actions)

    def test_a_server_that_comes_back_with_another_policy_is_refused(self, toy_run):
        with serving(toy_run) as url:
            policy = source_of(url).load()
            policy._connection.greeting["fingerprint"] = "that of yesterday"
            policy._connection._socket.close()
            with pytest.raises(RemoteError, match="has another policy now; begin again"):
                chunks_of(policy, an_observation())

    def test_a_server_that_has_gone(self, toy_run):
        with serving(toy_run) as url:
            policy = source_of(url).load()
            chunks_of(policy, an_observation())
        with pytest.raises(RemoteError, match="does not answer"):
            chunks_of(policy, an_observation())


class TestOthers:
    def test_openpis_client(self, toy_run, server):
        openpi = pytest.importorskip("openpi_client.websocket_client_policy")
        port = int(server.rpartition(":")[2])
        client = openpi.WebsocketClientPolicy("localhost", port)
        assert client.get_server_metadata()["horizon"] == toy.TINY.horizon
        answer = client.infer(a_message())
        assert answer["actions"].shape == (toy.TINY.horizon, 3)
        assert np.isfinite(answer["actions"]).all()

    @pytest.mark.parametrize("form", ["ours", "flat", "nested"])
    def test_every_spelling_means_the_same(self, server, form):
        message = a_message(noise=wire.noise_to(stream(1, "x")))
        position, pictures = message.pop("agent_pos"), message.pop("pixels")
        spelt = {
            "ours": {"agent_pos": position, "pixels": pictures},
            "flat": {
                "observation/state": position.astype(np.float64),
                **{f"observation/{name}": picture for name, picture in pictures.items()},
            },
            "nested": {
                "state": position,
                "images": {name: p.transpose(2, 0, 1) for name, p in pictures.items()},
            },
        }
        with connect(server) as socket:
            socket.recv()
            answers = []
            for words in (spelt["ours"], spelt[form]):
                socket.send(wire.pack({**message, **words}))
                answers.append(wire.unpack(socket.recv())["actions"])
        assert np.array_equal(*answers)

    def test_our_client_at_anothers_server(self):
        asked = []

        def converse(connection):
            connection.send(wire.pack({}))
            for data in connection:
                asked.append(wire.unpack(data))
                connection.send(wire.pack({"actions": np.full((10, 3), 0.5)}))

        with serve(converse, "localhost", 0) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            port = other.socket.getsockname()[1]
            words = "agent_pos=observation/state&top=observation/image&horizon=4&size=12x16"
            source = source_of(f"ws://localhost:{port}?{words}")
            assert source.fingerprint == source.where  # it says nothing of its policy
            policy = source.load()
            chunks = chunks_of(policy, an_observation(), n=2)
            policy._connection.close()
            other.shutdown()
        assert chunks.actions.shape == (1, 2, 4, 3)
        assert policy.cameras == {"top": (12, 16)}
        assert len(asked) == 2
        assert set(asked[0]) == {"observation/state", "observation/image", "prompt"}
        assert asked[0]["observation/image"].shape == (12, 16, 3)

    def test_anothers_server_needs_words(self):
        with pytest.raises(ValueError, match="say horizon=STEPS and size=HEIGHTxWIDTH"):
            RemoteSource("ws://localhost:1?top=observation/image")

    def test_the_scorer_chooses_at_the_server(self, toy_run):
        noise = wire.noise_to(stream(1, "x"))
        with serving(toy_run, scorer="medoid", candidates=5) as url, connect(url) as socket:
            socket.recv()
            socket.send(wire.pack(a_message(noise=noise)))
            best = wire.unpack(socket.recv())["actions"]
            socket.send(wire.pack(a_message(noise=noise, candidates=5)))
            candidates = wire.unpack(socket.recv())["candidates"]
        distances = np.abs(candidates - best).max((1, 2))
        assert np.sort(distances)[0] < 1e-6
        assert np.sort(distances)[1] > 1e-6


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"agent_pos": np.zeros(2, np.float32)}, "agent_pos must be an array of 3 numbers"),
            ({"agent_pos": np.full(3, np.nan)}, "not finite"),
            ({"agent_pos": "home"}, "agent_pos must be an array of 3 numbers"),
            ({"pixels": {}}, "picture of camera 'top' must be uint8"),
            ({"pixels": 3}, "picture of camera 'top' must be uint8"),
            ({"prompt": 3}, "give the instruction as text"),
            ({"candidates": 10**9}, "ask for 0 to 64"),
            ({"noise": "much"}, "two hexadecimal words"),
            ({"refine": "these"}, "refine must be 1 to 256 chunks of shape (4, 3)"),
            ({"refine": np.zeros((300, 4, 3))}, "refine must be 1 to 256 chunks"),
            ({"refine": np.zeros((2, 3, 4))}, "refine must be 1 to 256 chunks"),
            ({"refine": np.full((2, 4, 3), np.nan)}, "refine has numbers that are not finite"),
            ({"refine": np.zeros((2, 4, 3))}, "level is None; give a share of noise from 0 to 1"),
            ({"refine": np.zeros((2, 4, 3)), "level": 2}, "level is 2; give a share"),
            ({"overlap": np.zeros((4, 3))}, "overlap must be a map of actions and weights"),
            (
                {"overlap": {"actions": np.zeros((3, 3))}},
                "overlap's actions must be an array of 4 x",
            ),
            (
                {"overlap": {"actions": np.zeros((4, 3)), "weights": np.zeros(3)}},
                "overlap's weights must be an array of 4 numbers",
            ),
            (
                {"overlap": {"actions": np.zeros((4, 3)), "weights": np.full(4, 1.1)}},
                "overlap's weights must be shares from 0 to 1",
            ),
            ({"x": {b"__npgeneric__": True, b"data": 300, b"dtype": "|i1"}}, "300 is too large"),
        ],
    )
    def test_a_wrong_observation_is_refused_and_the_next_one_answered(self, server, changes, words):
        with connect(server) as socket:
            socket.recv()
            socket.send(wire.pack(a_message(**changes)))
            answer = socket.recv()
            assert isinstance(answer, str)
            assert words in answer
            socket.send(wire.pack(a_message()))
            assert "actions" in wire.unpack(socket.recv())

    def test_malformed_frames_leave_it_serving(self, server):
        rng = np.random.default_rng(0)
        good = wire.pack(a_message())
        with connect(server) as socket:
            socket.recv()
            for _ in range(500):
                kind = rng.integers(3)
                if kind == 0:
                    frame = rng.bytes(int(rng.integers(1, 300)))
                elif kind == 1:
                    frame = good[: int(rng.integers(1, len(good)))]
                else:
                    frame = bytearray(good)
                    for _ in range(8):
                        frame[int(rng.integers(200))] = int(rng.integers(256))
                    frame = bytes(frame)
                socket.send(frame)
                socket.recv()
            socket.send(good)
            assert "actions" in wire.unpack(socket.recv())

    def test_a_message_that_is_too_large_ends_only_its_own_conversation(self, toy_run):
        with serving(toy_run, max_mib=1) as url, connect(url) as other:
            other.recv()
            with connect(url, max_size=None) as socket:
                socket.recv()
                socket.send(b"\x00" * (2 << 20))
                with pytest.raises(ConnectionClosed):
                    socket.recv()
            other.send(wire.pack(a_message()))
            assert "actions" in wire.unpack(other.recv())

    def test_clients_that_say_nothing_or_stop_listening_hold_up_nobody(self, server):
        with ExitStack() as clients:
            for _ in range(5):  # mute
                clients.enter_context(connect(server))
            deaf = clients.enter_context(connect(server, max_queue=1))
            for _ in range(20):
                deaf.send(wire.pack(a_message()))
            socket = clients.enter_context(connect(server))
            socket.recv()
            for _ in range(10):
                socket.send(wire.pack(a_message()))
                assert "actions" in wire.unpack(socket.recv(5))

    def test_who_comes_when_it_is_full(self, toy_run):
        with serving(toy_run, clients=1) as url, connect(url) as first:
            first.recv()
            with pytest.raises(InvalidStatus, match="503"):
                connect(url)
            with pytest.raises(RemoteError, match="too many clients"):
                source_of(url).load()

    @pytest.mark.parametrize("kind", [RuntimeError, KeyError, OSError])
    def test_a_failing_policy_says_so(self, toy_run, monkeypatch, kind):
        with serving(toy_run) as url, connect(url) as socket:
            socket.recv()

            def broken(self, *arguments):
                raise kind("out of memory")

            from robolearn.policies.flow import FlowPolicy

            monkeypatch.setattr(FlowPolicy, "sample", broken)
            socket.send(wire.pack(a_message()))
            assert f"the policy failed: {kind.__name__}('out of memory')" in socket.recv()
            monkeypatch.undo()
            socket.send(wire.pack(a_message()))
            assert "actions" in wire.unpack(socket.recv())


class TestAdmission:
    def test_health(self, server):
        with urllib.request.urlopen(f"http{server[2:]}/healthz") as answer:
            assert answer.read() == b"OK\n"

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
    def test_other_addresses_need_a_token(self, toy_run, host, monkeypatch):
        monkeypatch.delenv(TOKEN, raising=False)
        with pytest.raises(ValueError, match=f"{host} can be reached .* set {TOKEN}"):
            PolicyServer(ServeConfig(policy=str(toy_run), host=host))

    def test_the_token_opens(self, toy_run, monkeypatch):
        monkeypatch.setenv(TOKEN, "open sesame")
        with serving(toy_run, host="0.0.0.0") as url:
            assert source_of(url).load().horizon == toy.TINY.horizon
            for wrong in ("close sesame", ""):
                monkeypatch.setenv(TOKEN, wrong)
                with pytest.raises(RemoteError, match=f"does not let us in: set {TOKEN}"):
                    source_of(url).load()

    def test_tls(self, toy_run, tmp_path, monkeypatch):
        certificate, key = tmp_path / "host.pem", tmp_path / "host.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(
            [*command, "-out", certificate, "-keyout", key], check=True, capture_output=True
        )
        with serving(toy_run, certificate=certificate, key=key) as url:
            with pytest.raises(RemoteError, match="does not answer"):
                source_of(url).load()  # nobody vouches for it
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            ssl.create_default_context()
            assert source_of(url).load().horizon == toy.TINY.horizon

    def test_half_a_certificate(self, toy_run, tmp_path):
        with pytest.raises(ValueError, match="both --certificate and --key"):
            PolicyServer(ServeConfig(policy=str(toy_run), certificate=tmp_path / "x"))

    def test_candidates_need_a_scorer(self, toy_run):
        with pytest.raises(ValueError, match="give --scorer"):
            PolicyServer(ServeConfig(policy=str(toy_run), candidates=4))


def test_the_command(toy_run):
    command = [sys.executable, "-m", "robolearn", "serve", "--policy", str(toy_run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url, _, rest = process.stdout.readline().partition(" ")
            assert rest.startswith("serves ")
            assert source_of(url).env == json.loads(
                (source_of(toy_run).folder / "config.json").read_text()
            ).get("env", "")
        finally:
            process.send_signal(2)
        assert process.wait(20) == 0
