"""The command line: `robolearn COMMAND --help` shows a command's options.

A command is a module with `main(config) -> exit code` and a frozen dataclass, its config. Modules
are imported when their command runs, and the configs of heavy ones stand in `robolearn.options`, so
that `--help` answers at once.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any, Final

_TRAIN, _FIT = ("train", "options:TrainConfig"), ("fit", "options:FitConfig")
_FILTER, _WRITER = ("fit", "options:FilterConfig"), ("fit", "options:WriterConfig")
_IMPROVE = ("improve", "learn_options:ImproveConfig")
# A command one of whose options names the method that it is about:
# method -> (module, module:class of the config, module:class of the config's field of that name)
METHODS: Final = {
    "train": {
        "flow": (*_TRAIN, "policies.configs:FlowConfig"),
        "diffusion": (*_TRAIN, "policies.configs:DiffusionConfig"),
        "act2goal": (*_TRAIN, "policies.latent_configs:Act2GoalConfig"),
        "susie": (*_TRAIN, "policies.latent_configs:SusieConfig"),
        "cem": (*_TRAIN, "policies.latent_configs:CemConfig"),
        "gcbc": (*_TRAIN, "policies.goal_configs:GcbcConfig"),
        "hiql": (*_TRAIN, "policies.goal_configs:HiqlConfig"),
        "saw": (*_TRAIN, "policies.goal_configs:SawConfig"),
        "taco": (*_FIT, "policies.configs:TacoConfig"),
        "knn": (*_FIT, "policies.configs:KnnConfig"),
        "mahalanobis": (*_FIT, "policies.configs:MahalanobisConfig"),
        "rnd": (*_FIT, "policies.configs:RndConfig"),
        "subgoal-filter": (*_FILTER, "policies.configs:SubgoalFilterConfig"),
        "goal-writer": (*_WRITER, "policies.latent_configs:GoalWriterConfig"),
    },
    "improve": {
        "aloe": (*_IMPROVE, "policies.improver_configs:AloeConfig"),
        "bc": (*_IMPROVE, "policies.improver_configs:BcConfig"),
        "dagger": (*_IMPROVE, "policies.improver_configs:DaggerConfig"),
        "awr": (*_IMPROVE, "policies.improver_configs:AwrConfig"),
        "iql": (*_IMPROVE, "policies.improver_configs:IqlConfig"),
        "q-chunking": (*_IMPROVE, "policies.improver_configs:QChunkingConfig"),
        "recap": (*_IMPROVE, "policies.improver_configs:RecapConfig"),
        "fql": (*_IMPROVE, "policies.improver_configs:FqlConfig"),
        "dsrl": (*_IMPROVE, "policies.improver_configs:DsrlConfig"),
        "rlpd": (*_IMPROVE, "policies.improver_configs:RlpdConfig"),
    },
}
NAMED_BY: Final = {"train": "policy", "improve": "algo"}

# Parts of a method's settings of which there are several kinds, chosen by `--policy.PART KIND`.
PARTS: Final = {
    "backbone": {
        "small": "policies.configs:SmallConfig",
        "pretrained": "policies.configs:PretrainedConfig",
        "stable-control": "policies.configs:StableControlConfig",
    }
}

# command -> (module, module:class of its config or "" for none, one line of help); a command may
# have two words
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "demo": ("demo", "options:DemoConfig", "record, train, evaluate and report, in one go"),
    "record": ("record", "options:RecordConfig", "record demonstrations of a scripted expert"),
    "train": ("train", "options:TrainConfig", "train a policy on a dataset, or fit a verifier"),
    "improve": (
        "improve",
        "learn_options:ImproveConfig",
        "improve a policy by what it experiences",
    ),
    "adapt": (
        "adapt",
        "learn_options:AdaptConfig",
        "practise towards goal pictures, without reward",
    ),
    "online": (
        "online",
        "learn_options:OnlineConfig",
        "learn a task by trying, without demonstrations",
    ),
    "eval": ("evaluate", "options:EvalConfig", "evaluate a policy on unseen seeds"),
    "report": (
        "report_command",
        "options:ReportConfig",
        "make an HTML page of an evaluation",
    ),
    "card": ("card", "card:CardConfig", "write a model card for a checkpoint"),
    "bench": ("bench.speed", "bench.speed:BenchConfig", "measure speed against MuJoCo and LeRobot"),
    "bench list": ("bench.list_suites", "bench.list_suites:BenchListConfig", "list the suites"),
    "bench run": ("bench.run", "bench.run:BenchRunConfig", "run agents side by side on a suite"),
    "bench compare": (
        "bench.compare",
        "bench.compare:BenchCompareConfig",
        "compare runs of one suite, pair by pair",
    ),
    "bench worst": (
        "bench.worst",
        "bench.worst:BenchWorstConfig",
        "find the dynamics at which a policy does worst",
    ),
    "bench-arm": (
        "bench.arm",
        "bench.arm:BenchArmConfig",
        "measure the arm's driver: faults, punctuality, and a policy on the twin",
    ),
    "bench-taco": (
        "bench.taco",
        "bench.taco:BenchTacoConfig",
        "measure what choosing among candidate action chunks is worth",
    ),
    "bench-policies": (
        "bench.policies",
        "bench.policies:BenchPoliciesConfig",
        "measure our policies beside LeRobot's, after the same time of training",
    ),
    "bench-foreign": (
        "bench.foreign",
        "bench.foreign:BenchForeignConfig",
        "measure our policies beside LeRobot's on tasks that others wrote",
    ),
    "bench-aloe": (
        "bench.aloe",
        "bench.aloe:BenchAloeConfig",
        "measure post-training methods at equal numbers of interactions",
    ),
    "bench-act2goal": (
        "bench.act2goal",
        "bench.act2goal:BenchAct2GoalConfig",
        "measure policies that are shown their goal, before and after practice",
    ),
    "bench-scale": (
        "bench.scale",
        "bench.scale:BenchScaleConfig",
        "measure what workers and a Ray cluster are worth",
    ),
    "bench-serve": (
        "bench.serve",
        "bench.serve:BenchServeConfig",
        "measure how many clients a policy server holds",
    ),
    "reproduce": (
        "bench.reproduce",
        "bench.reproduce:ReproduceConfig",
        "measure again what README says, and print what moved",
    ),
    "deploy": ("deploy", "options:DeployConfig", "run a policy on an arm, or on its digital twin"),
    "goal-picture": (
        "goal_picture",
        "options:GoalPictureConfig",
        "take a goal picture with an arm's own cameras",
    ),
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
    "envs": (
        "list_envs",
        "options:EnvsConfig",
        "list the environments, show or install some",
    ),
}


def usage() -> str:
    """What `robolearn --help` prints."""
    lines = [f"  {name:14} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: robolearn COMMAND [options]", "", *lines, "", "robolearn COMMAND --help: options"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0 good, 1 a clear error, 2 a wrong call."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    command, rest = split(arguments)
    if command not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(command, COMMANDS, n=1, cutoff=0.0)[0]
        print(f"robolearn: no command {command!r}; did you mean {near!r}?", file=sys.stderr)
        return 2
    return _run(command, rest)


def split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command, of two words where there is such a one, and what follows it."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    return " ".join(arguments[:words]), list(arguments[words:])


def _run(command: str, arguments: list[str]) -> int:
    module_name, config_name, text = COMMANDS[command]
    prog = f"robolearn {command}"
    try:
        import tyro

        if not config_name:
            return tyro.cli(_load(f"{module_name}:main"), args=arguments, prog=prog)
        chosen: dict[str, Any] = {}
        if command in METHODS:
            option, methods = NAMED_BY[command], METHODS[command]
            method, arguments = _choice(f"--{option}", methods, arguments)
            module_name, config_name, settings_name = methods[method]
            settings, arguments = _settings(option, _load(settings_name), arguments)
            default = _unfinished(_load(config_name), **{option: settings})
            chosen = {"default": default, "config": (tyro.conf.AvoidSubcommands,)}
            prog = f"{prog} --{option} {method}"
            text = f"{text}: {', '.join(methods)}"
            for part in (f.name for f in fields(settings) if f.name in PARTS):
                text = f"{text}; --{option}.{part} {' | '.join(PARTS[part])}"
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


def _choice(
    option: str, among: Mapping[str, Any], arguments: Sequence[str]
) -> tuple[str, list[str]]:
    """What an option says, by default the first, and the other arguments.

    Raises:
        ValueError: it is not among the choices.
    """
    choice, rest = next(iter(among)), []
    for word in (words := iter(arguments)):
        name, _, value = word.partition("=")
        if name == option:
            choice = value or next(words, "")
        else:
            rest.append(word)
    if choice not in among:
        raise ValueError(f"no {choice!r} for {option}; choose one of {', '.join(among)}")
    return choice, rest


def _settings(
    option: str,
    kind: Any,  # noqa: ANN401
    arguments: list[str],
) -> tuple[Any, list[str]]:
    """A method's settings with the parts that were chosen, and the other arguments."""
    parts = {}
    for part in (f.name for f in fields(kind) if f.name in PARTS):
        choice, arguments = _choice(f"--{option}.{part}", PARTS[part], arguments)
        parts[part] = _load(PARTS[part][choice])()
    return kind(**parts), arguments


def _unfinished(kind: Any, **settings: Any) -> Any:  # noqa: ANN401
    """A config with some settings, whose required ones the command line has yet to give."""
    import tyro

    plain = (MISSING, MISSING)
    required = [f.name for f in fields(kind) if (f.default, f.default_factory) == plain]
    return kind(**dict.fromkeys(required, tyro.MISSING), **settings)


def _load(name: str) -> Any:  # noqa: ANN401 (a config class or a function)
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"robolearn.{module}"), attribute)
