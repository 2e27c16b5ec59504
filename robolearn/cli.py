"""The command line: `robolearn COMMAND --help` shows a command's options.

A command is a module with `main(config) -> exit code` and a frozen dataclass, its config. Modules
are imported when their command runs, and the configs of heavy ones stand in `robolearn.options`, so
that `--help` answers at once.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import Any, Final


@dataclass(frozen=True)
class Methods:
    """A command one of whose options names the method that it is about.

    Attributes:
        option: such as `policy`; the config's field of this name holds the method's settings.
        of: method -> (module, module:class of the config, module:class of that field).
    """

    option: str
    of: Mapping[str, tuple[str, str, str]]

    def named(self, arguments: Sequence[str]) -> tuple[str, list[str]]:
        """The method, by default the first, and the other arguments.

        Raises:
            ValueError: no such method.
        """
        method, rest = next(iter(self.of)), []
        for word in (words := iter(arguments)):
            name, _, value = word.partition("=")
            if name == f"--{self.option}":
                method = value or next(words, "")
            else:
                rest.append(word)
        if method not in self.of:
            raise ValueError(
                f"no method {method!r} for --{self.option}; choose one of {', '.join(self.of)}"
            )
        return method, rest


_TRAIN, _FIT = ("train", "options:TrainConfig"), ("fit", "options:FitConfig")
_IMPROVE = ("improve", "options:ImproveConfig")
METHODS: Final = {
    "train": Methods(
        "policy",
        {
            "flow": (*_TRAIN, "policies.configs:FlowConfig"),
            "diffusion": (*_TRAIN, "policies.configs:DiffusionConfig"),
            "taco": (*_FIT, "policies.configs:TacoConfig"),
            "knn": (*_FIT, "policies.configs:KnnConfig"),
            "mahalanobis": (*_FIT, "policies.configs:MahalanobisConfig"),
            "rnd": (*_FIT, "policies.configs:RndConfig"),
        },
    ),
    "improve": Methods(
        "algo",
        {
            "aloe": (*_IMPROVE, "policies.configs:AloeConfig"),
            "bc": (*_IMPROVE, "policies.configs:BcConfig"),
            "dagger": (*_IMPROVE, "policies.configs:DaggerConfig"),
            "awr": (*_IMPROVE, "policies.configs:AwrConfig"),
            "iql": (*_IMPROVE, "policies.configs:IqlConfig"),
            "q-chunking": (*_IMPROVE, "policies.configs:QChunkingConfig"),
        },
    ),
}

# command -> (module, module:class of its config or "" for none, one line of help)
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "demo": ("demo", "options:DemoConfig", "record, train, evaluate and report, in one go"),
    "record": ("record", "options:RecordConfig", "record demonstrations of a scripted expert"),
    "train": ("train", "options:TrainConfig", "train a policy on a dataset, or fit a verifier"),
    "improve": ("improve", "options:ImproveConfig", "improve a policy by what it experiences"),
    "eval": ("evaluate", "options:EvalConfig", "evaluate a policy on unseen seeds"),
    "report": (
        "report_command",
        "options:ReportConfig",
        "make an HTML page of an evaluation",
    ),
    "bench": ("bench", "bench:BenchConfig", "measure speed against MuJoCo and LeRobot"),
    "bench-arm": (
        "bench_arm",
        "bench_arm:BenchArmConfig",
        "measure the arm's driver: faults, punctuality, and a policy on the twin",
    ),
    "bench-taco": (
        "bench_taco",
        "bench_taco:BenchTacoConfig",
        "measure what choosing among candidate action chunks is worth",
    ),
    "bench-policies": (
        "bench_policies",
        "bench_policies:BenchPoliciesConfig",
        "measure our policies beside LeRobot's, after the same time of training",
    ),
    "bench-aloe": (
        "bench_aloe",
        "bench_aloe:BenchAloeConfig",
        "measure post-training methods at equal numbers of interactions",
    ),
    "bench-serve": (
        "bench_serve",
        "bench_serve:BenchServeConfig",
        "measure how many clients a policy server holds",
    ),
    "deploy": ("deploy", "options:DeployConfig", "run a policy on an arm, or on its digital twin"),
    "serve": ("serve", "options:ServeConfig", "serve a policy to other programs and machines"),
    "twin": ("hardware.twin", "hardware.twin:TwinConfig", "run the digital twin of the arm"),
    "calibrate": (
        "hardware.calibrate",
        "hardware.calibrate:CalibrateConfig",
        "find where an arm's joints end, and tell its servos and a file",
    ),
    "blackbox": (
        "hardware.replay",
        "hardware.replay:BlackboxCommand",
        "show what led to a fault, or replay it on the twin",
    ),
    "identify": (
        "hardware.identify",
        "options:IdentifyConfig",
        "identify an arm's servos from a recording",
    ),
    "doctor": ("doctor", "", "check this machine and say what to do"),
    "envs": ("list_envs", "options:EnvsConfig", "list the environments, or show them"),
}


def usage() -> str:
    """What `robolearn --help` prints."""
    lines = [f"  {name:9} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: robolearn COMMAND [options]", "", *lines, "", "robolearn COMMAND --help: options"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0 good, 1 a clear error, 2 a wrong call."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(arguments[0], COMMANDS, n=1, cutoff=0.0)[0]
        print(f"robolearn: no command {arguments[0]!r}; did you mean {near!r}?", file=sys.stderr)
        return 2
    return _run(arguments[0], arguments[1:])


def _run(command: str, arguments: list[str]) -> int:
    module_name, config_name, text = COMMANDS[command]
    prog = f"robolearn {command}"
    try:
        import tyro

        if not config_name:
            return tyro.cli(_load(f"{module_name}:main"), args=arguments, prog=prog)
        chosen: dict[str, Any] = {}
        if command in METHODS:
            method, arguments = METHODS[command].named(arguments)
            module_name, config_name, settings_name = METHODS[command].of[method]
            option = METHODS[command].option
            default = _unfinished(_load(config_name), **{option: _load(settings_name)()})
            chosen = {"default": default, "config": (tyro.conf.AvoidSubcommands,)}
            prog = f"{prog} --{option} {method}"
            text = f"{text}: {', '.join(METHODS[command].of)}"
        config = tyro.cli(
            _load(config_name),
            args=arguments,
            prog=prog,
            description=text,
            **chosen,
        )
        return _load(f"{module_name}:main")(config)
    # Bad input is a ValueError or an OSError with a sentence; anything else is a bug and shows.
    except (ValueError, OSError) as error:
        print(f"robolearn {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"robolearn {command}: interrupted; what is on disk stays", file=sys.stderr)
        return 130


def _unfinished(kind: Any, **settings: Any) -> Any:  # noqa: ANN401
    """A config with some settings, whose required ones the command line has yet to give."""
    import tyro

    plain = (MISSING, MISSING)
    required = [f.name for f in fields(kind) if (f.default, f.default_factory) == plain]
    return kind(**dict.fromkeys(required, tyro.MISSING), **settings)


def _load(name: str) -> Any:  # noqa: ANN401 (a config class or a function)
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"robolearn.{module}"), attribute)
