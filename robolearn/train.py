"""`robolearn train`: trains a policy on a dataset, and resumes bit-exactly.

What batch k holds, and every random number of step k, derive from (seed, k) alone. So there is no
sampler or generator to save: weights, averaged weights, optimiser moments and the step number are
the whole state, and 40 steps equal 20, an interruption, and 20 more.

Several processes, as `accelerate launch` starts them, each take a batch of their own, drawn from
their number too; gradients are averaged, and the first process writes.

This is not about what a loss is: that is the policy's. It is about running it.
"""

import hashlib
import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from robolearn import checkpoint
from robolearn.beginning import begun, check, first_policy, newest_of
from robolearn.config import save_config
from robolearn.dataset import EpisodeDataset
from robolearn.doctor import bf16_pays
from robolearn.episodes import DatasetError
from robolearn.files import AtomicFolder
from robolearn.options import TrainConfig
from robolearn.policies.base import Batch, TrainablePolicy, as_tensors
from robolearn.schedule import cosine
from robolearn.seeding import stream
from robolearn.training_log import Interrupt, TrainingLog

STATE: Final = "state.safetensors"  # what resuming needs beyond the model


class Trainer:
    """One training run: `run` takes it from where it is to its last step."""

    def __init__(self, config: TrainConfig) -> None:
        check(config)
        self.config, self.threads = config, config.threads
        self.dataset = EpisodeDataset(config.data, units=config.units)
        precision = "bf16" if config.device != "cpu" or bf16_pays() else "no"
        self.accelerator = Accelerator(mixed_precision=precision, cpu=config.device == "cpu")
        self.device = self.accelerator.device
        torch.manual_seed(config.seed)  # the initial weights
        self.policy = first_policy(config, self.dataset)
        self.average = _copy(self.policy).to(self.device)
        model: nn.Module = _Loss(self.policy)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = self.accelerator.prepare(model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), weight_decay=config.weight_decay, fused=True
        )
        self.windows = self.policy.windows(self.dataset)
        self.step = 0

    def run(self) -> Path:
        """Trains to the last step and returns the newest checkpoint.

        Raises:
            SystemExit: after SIGTERM or Ctrl-C, with everything saved.
        """
        self._choose_threads()
        with Interrupt() as interrupt, self._log() as log:
            for info in self._steps():
                if log:
                    log.add(self.step, info)
                last, stop = self.step == self.config.steps, self._agreed(interrupt)
                if last or stop or self.step % self.config.save_every == 0:
                    self.save()
                if stop and not last:
                    interrupt.leave(
                        f"saved step {self.step}; go on with: "
                        f"robolearn train --data {self.config.data} --out {self.config.out} "
                        "--resume"
                    )
        return checkpoint.checkpoints(self.config.out)[-1]

    def _log(self) -> AbstractContextManager[TrainingLog | None]:
        """The log of the run; of several processes the first one writes it."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        return TrainingLog(self.config, self.step, self.accelerator.num_processes)

    def _agreed(self, interrupt: Interrupt) -> bool:
        """Whether to stop, in all processes after the same step: none may wait for another."""
        if self.accelerator.num_processes == 1:
            return bool(interrupt.seen)
        if interrupt.seen:
            self.accelerator.set_trigger()
        stop = self.accelerator.check_trigger()
        interrupt.seen = interrupt.seen or stop * signal.SIGTERM
        return stop

    def _steps(self) -> Iterator[dict[str, float]]:
        while self.step < self.config.steps:
            rate = self._learning_rate()
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, info = self.model(self.batch(self.step), stream(self.step, f"loss {self._id}"))
            self.accelerator.backward(loss)
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
            info |= {"loss": float(loss.detach()), "learning_rate": rate, "gradient": float(norm)}
            if not (math.isfinite(info["loss"]) and math.isfinite(info["gradient"])):
                raise ValueError(
                    f"step {self.step} diverged (loss {info['loss']}, gradient {info['gradient']}):"
                    " train again with a smaller --learning-rate; the checkpoints before are good"
                )
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            self._update_average()
            yield info

    @property
    def _id(self) -> str:
        """Names the random streams of this run and, on several machines, of this process."""
        return f"{self.config.seed} {self.accelerator.process_index}"

    def batch(self, step: int) -> Batch:
        """The batch of a step: drawn from (seed, step) alone."""
        rng = stream(step, f"batch {self._id}")
        batch = as_tensors(self.windows.draw(rng, self.config.batch_size), self.device)
        return batch | {"trained": step / self.config.steps}

    def _learning_rate(self) -> float:
        c = self.config
        return c.learning_rate * cosine(self.step, c.steps, c.warmup)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        ours: list[Tensor] = list(self.policy.parameters())
        torch._foreach_lerp_(list(self.average.parameters()), ours, 1.0 - decay)

    def _choose_threads(self) -> None:
        """Two threads on a busy machine can be slower than one, so it is measured."""
        if self.config.device != "cpu":
            return
        counts = [self.threads] if self.threads else _thread_counts()
        seconds = {n: self._time_loss(n) for n in counts} if len(counts) > 1 else {counts[0]: 0.0}
        self.threads = min(seconds, key=lambda n: seconds[n])
        torch.set_num_threads(self.threads)

    def _time_loss(self, threads: int) -> float:
        torch.set_num_threads(threads)
        batch, times = self.batch(0), []
        model = self.accelerator.unwrap_model(self.model)  # processes need not agree on a count
        for _ in range(4):
            begin = time.perf_counter()
            loss, _ = model(batch, stream(0, "time"))
            self.accelerator.backward(loss)
            self.optimizer.zero_grad()
            times.append(time.perf_counter() - begin)
        return min(times[1:])

    def save(self) -> None:
        """Writes the checkpoint of this step: the averaged policy, and the state to resume from."""
        if self.accelerator.is_main_process:
            self._write()
        self.accelerator.wait_for_everyone()

    def _write(self) -> None:
        folder = self.config.out / "checkpoints" / f"{self.step:07d}"
        with AtomicFolder(folder) as temporary:
            self.average.save(temporary / "model")
            checkpoint.save_tensors(temporary / STATE, self._state())
        for older in checkpoint.checkpoints(self.config.out)[:-2]:  # one to resume, one in reserve
            (older / STATE).unlink(missing_ok=True)

    def _state(self) -> dict[str, Tensor]:
        moments = self.optimizer.state_dict()["state"]
        flat = {f"optimizer.{i}.{k}": v for i, s in moments.items() for k, v in s.items()}
        weights = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        # Another number of threads would change the last bits of sums.
        flat |= {"step": torch.tensor(self.step), "threads": torch.tensor(self.threads)}
        flat |= {"data": self._fingerprint(), "format": torch.tensor(checkpoint.FORMAT)}
        flat |= {"processes": torch.tensor(self.accelerator.num_processes)}
        flat |= {"bf16": torch.tensor(self._in_bf16)}
        return weights | {f"average.{k}": v for k, v in self.average.state_dict().items()} | flat

    @property
    def _in_bf16(self) -> bool:
        return self.accelerator.mixed_precision == "bf16"

    def restore(self) -> None:
        """Goes back to the newest checkpoint of the run.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        newest, data = newest_of(self.config), f"the dataset {self.config.data}"
        state = checkpoint.load_tensors(newest / STATE)
        if int(state.get("format", 1)) != checkpoint.FORMAT:
            raise checkpoint.CheckpointError(
                f"{self.config.out} was begun by an older version; resume it with that version, or "
                f"go on in another --out with: --init {self.config.out}"
            )
        if (before := int(state.get("processes", 1))) != self.accelerator.num_processes:
            raise ValueError(
                f"{self.config.out} was begun with {before} processes, and these are "
                f"{self.accelerator.num_processes}; resume it with as many, or go on in another "
                f"--out with: --init {self.config.out}"
            )
        if (before := bool(state.get("bf16", self._in_bf16))) != self._in_bf16:
            raise ValueError(
                f"{self.config.out} was begun {'with' if before else 'without'} bf16, unlike what "
                "is faster on this machine; resume it on one like that where it was begun, or go "
                f"on in another --out with: --init {self.config.out}"
            )
        if not torch.equal(state["data"], self._fingerprint()):
            raise DatasetError(
                f"{self.config.data} is not what {self.config.out} was trained on; resume with "
                "that data as it was, or start a new run in another --out"
            )
        checkpoint.assign_weights(self.policy, _part(state, "policy."), newest, data)
        checkpoint.assign_weights(self.average, _part(state, "average."), newest, data)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(state, "optimizer.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for weight, of_weight in self.optimizer.state.items():
            for key, value in of_weight.items():
                # The fused optimiser walks through memory, so the layouts must be the same.
                of_weight[key] = _laid_out_as(weight, value)
        self.step, self.threads = int(state["step"]), int(state["threads"])

    def _fingerprint(self) -> Tensor:
        """A digest of the demonstrated actions: other data would give other batches."""
        actions = np.ascontiguousarray(self.dataset.columns["action"])
        return torch.tensor(list(hashlib.sha256(actions.tobytes()).digest()), dtype=torch.uint8)


class _Loss(nn.Module):
    """The policy's loss as a forward pass, which is what accelerate wraps."""

    def __init__(self, policy: TrainablePolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        return self.policy.loss(batch, rng)


def _copy(policy: TrainablePolicy) -> TrainablePolicy:
    copy = type(policy).from_description(policy.description())
    copy.load_state_dict(policy.state_dict())
    return copy.eval().requires_grad_(requires_grad=False)


def _laid_out_as(weight: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _thread_counts() -> list[int]:
    cores = torch.get_num_threads()
    return sorted({1, max(1, cores // 2), cores})


def train(config: TrainConfig) -> Path:
    """Trains, or resumes, and returns the newest checkpoint.

    Raises:
        FileExistsError: `out` holds a run already and `resume` is off.
        DatasetError, CheckpointError: unusable input.
    """
    config = begun(config)
    trainer = Trainer(config)
    if config.resume:
        trainer.restore()
    elif trainer.accelerator.is_main_process:
        save_config(config, config.out)
    return trainer.run()


def main(config: TrainConfig) -> int:
    """Runs the command."""
    newest = train(config)
    if not PartialState().is_main_process:
        return 0
    print(f"{newest} is trained; see what it can do with:")
    print(f"  robolearn eval --policy {config.out}")
    return 0
