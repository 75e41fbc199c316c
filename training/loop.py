"""Training stage after stage: batches in, better weights out, a checkpoint now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ldp.devices import choose_precision
from ldp.models.network import LDPNet, parameter_count
from training import checkpoint
from training.checkpoint import Best, TrainState
from training.logs import Meter, RunLog
from training.losses import BlurAwareMap, total
from training.processes import Processes
from training.settings import TrainSettings, learning_rate
from training.validation import ValidationSet, validate

Batch = tuple[Tensor, Tensor, Tensor]
"""Views (B, 6, S, S), the planes of the blur map that the network reads (B, 1 or 2, S, S), the
amount first, and sharp (B, 3, S, S)."""
Feed = Callable[[TrainSettings, int, int, Processes], Iterable[Batch]]
"""(settings, stage, step, processes) -> this process's batches from that step on, `accumulate` of
them a step."""

# To look at the loss, or to agree on stopping, waits for the GPU, so it is not done at every step.
CHECK_EVERY = 20


@dataclass(frozen=True)
class Start:
    """Weights that a training begins with: a network of its kind, and the file's SHA-256."""

    network: LDPNet
    sha256: str


@dataclass(frozen=True)
class Run:
    """All of a training that stays the same.

    out: its folder. start: None where it begins with random weights.
    validation: None in all processes but the first, and where there is none.
    stop_at: the time.monotonic() at which it saves and stops.
    """

    stages: list[TrainSettings]
    feed: Feed
    out: Path
    processes: Processes
    blur_aware_map: BlurAwareMap | None = None
    validation: ValidationSet | None = None
    stop_at: float = math.inf
    start: Start | None = None

    def total_step(self, stage: int, step: int) -> int:
        """Steps over all stages so far."""
        return sum(settings.steps for settings in self.stages[:stage]) + step


def train(run: Run) -> bool:
    """Trains from the run's last checkpoint, if there is one; whether it came to the end.

    Raises FloatingPointError where the loss, a gradient or a weight is not finite; the last
    checkpoint stays. ValueError where the checkpoint is of another network or recipe.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    saved = checkpoint.read(run.out)
    first = 0 if saved is None else saved["stage"]
    if first >= len(run.stages):
        raise ValueError(f"{run.out}: its checkpoint is of stage {first + 1} of {len(run.stages)}")
    if run.processes.device.type == "cuda":
        # Fast rather than repeatable: a resumed run has the same state and the same batches, but a
        # GPU's sums may differ in their last bits, as they do between any two runs.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    log = None
    if run.processes.first:
        log = RunLog(run.out, run.total_step(first, saved["step"] if saved else 0))
    try:
        for stage in range(first, len(run.stages)):
            saved = checkpoint.read(run.out)
            state = begin(run.stages[stage], stage, saved, run.processes.device, run.start)
            if run.validation and state.best:
                # A score on other pictures is no score to beat.
                same = state.best.evaluation_set == run.validation.evaluation_set
                state.best = state.best if same else None
            if not _train_stage(run, state, log):
                return False
            run.processes.wait()
    finally:
        if log:
            log.close()
    return True


def begin(
    settings: TrainSettings,
    stage: int,
    saved: dict[str, Any] | None,
    device: torch.device,
    start: Start | None = None,
) -> TrainState:
    """The state to go on from: what was saved in this stage, or at the end of the one before it,
    whose averaged weights this one starts from. Without a checkpoint it is the first stage's start.

    Raises ValueError where the checkpoint is of another network or began with other weights.
    """
    torch.manual_seed(settings.seed)
    network = LDPNet(settings.network).to(device).to(memory_format=torch.channels_last)
    # Untrained it gives back the mean view: training begins at what is to be beaten.
    with torch.no_grad():
        for parameter in network.ending.parameters():
            parameter.zero_()
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    average = LDPNet(settings.network).to(device)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(
        network.parameters(),
        settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
    state = TrainState(network, average, optimizer, stage, started_from=_name(start))
    if saved is None:
        return state
    if saved["started_from"] != state.started_from:
        raise ValueError(
            f"{checkpoint.CHECKPOINT} is of a training that began with {saved['started_from']}, "
            f"not with {state.started_from}; train into another folder"
        )
    same_stage = saved["stage"] == stage
    try:
        network.load_state_dict(saved["network" if same_stage else "average"])
        average.load_state_dict(saved["average"])
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint.CHECKPOINT} is not of a network of size {settings.size}; train it into "
            f"another folder ({str(error)[:200]})"
        ) from error
    if saved.get("best"):
        state.best = Best(**saved["best"])
    if same_stage:
        optimizer.load_state_dict(saved["optimizer"])
        state.step = saved["step"]
    return state


def _name(start: Start | None) -> str:
    return f"weights {start.sha256}" if start else "random weights"


def _train_stage(run: Run, state: TrainState, log: RunLog | None) -> bool:
    """Trains to the stage's end, or to the time to stop; whether it came to the end."""
    settings, processes, network = run.stages[state.stage], run.processes, state.network
    parallel = DistributedDataParallel(network) if processes.count > 1 else None
    forward: Any = parallel or network
    if settings.compile:
        forward = torch.compile(forward, dynamic=False)
    # Where the hardware has no bfloat16 products it would be the slower way.
    narrow = settings.bf16 and choose_precision(processes.device) == torch.bfloat16
    if log:
        print(_headline(run, state), flush=True)
    batches = iter(run.feed(settings, state.stage, state.step, processes))
    meter = Meter(processes.device, state.step, settings.batch)
    stops = False
    while state.step < settings.steps and not stops:
        rate = learning_rate(state.step, settings)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad()
        for part in range(settings.accumulate):
            last = part == settings.accumulate - 1
            with parallel.no_sync() if parallel and not last else nullcontext():
                _learn(run, settings, forward, narrow, next(batches), meter)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_limit)
        meter.add_norm(norm)
        state.optimizer.step()
        state.step += 1
        done = state.step == settings.steps
        follow(
            state.average, network, min(settings.ema_decay, (1 + state.step) / (10 + state.step))
        )
        looks = done or state.step % CHECK_EVERY == 0
        if looks or processes.count == 1:
            stops = processes.any(time.monotonic() >= run.stop_at)
        validates = run.validation is not None and (
            done or state.step % settings.validate_every == 0
        )
        saves = done or stops or validates or state.step % settings.save_every == 0
        reports = done or stops or state.step % settings.report_every == 0
        if looks or saves or reports:
            meter.check(state.step, run.out)
        if reports:
            figures = meter.taken(
                state.step, rate, settings.blur_weighting_weight > 0, settings.blur_aware_weight > 0
            )
            if log:
                print(figures.line(state.step, settings.steps), flush=True)
                log.train(state.stage, state.step, run.total_step(state.stage, state.step), figures)
        if saves and log:
            started = time.monotonic()
            score_db = _validate(run, state, log) if validates else None
            evaluation_set = run.validation.evaluation_set if run.validation else ""
            checkpoint.save(run.out, state, settings, len(run.stages), score_db, evaluation_set)
            meter.pause(time.monotonic() - started)
    return state.step == settings.steps


def _learn(
    run: Run, settings: TrainSettings, forward: Any, narrow: bool, batch: Batch, meter: Meter
) -> None:
    """One pass: adds its part to the gradients. narrow: with bfloat16 products."""
    device = run.processes.device
    views, blur, sharp = (x.to(device, non_blocking=True) for x in batch)
    views = views.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        restored = forward(views, blur)
    restored = restored.float()
    terms = total(restored, sharp, views, blur[:, :1], settings.loss_weights, run.blur_aware_map)
    (terms.loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
    meter.add_pass(terms, gain_db(restored.detach(), views, sharp), settings.accumulate)


def _validate(run: Run, state: TrainState, log: RunLog) -> float:
    """The score of the averaged weights, told and logged."""
    assert run.validation
    checkpoint.check_finite(state, run.out)
    found = validate(state.average, run.validation, run.processes.device)
    print(found.scores.line(), flush=True)
    at = run.total_step(state.stage, state.step)
    log.figures("validation", state.stage, state.step, at, asdict(found.scores))
    for name, strip in found.samples:
        log.picture(name, at, strip)
    return found.scores.score_db


@torch.no_grad()
def follow(average: LDPNet, network: LDPNet, decay: float) -> None:
    """Moves the moving average of the weights 1 - decay of the way to the network's."""
    # One launch on a GPU, where a loop over the weights would take longer than the step.
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def gain_db(restored: Tensor, views: Tensor, sharp: Tensor) -> Tensor:
    """PSNR over that of the mean view, averaged over the batch; a scalar."""
    mean_view = (views[:, :3] + views[:, 3:]) / 2
    before = ((mean_view - sharp) ** 2).mean((1, 2, 3))
    after = ((restored - sharp) ** 2).mean((1, 2, 3))
    return 10 * torch.log10((before + 1e-8) / (after + 1e-8)).mean()


def _headline(run: Run, state: TrainState) -> str:
    settings, device = run.stages[state.stage], run.processes.device
    name = f"the CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = f"{run.processes.count} x {torch.cuda.get_device_name(device)}"
    return (
        f"stage {state.stage + 1} of {len(run.stages)}, {settings.size}: "
        f"{parameter_count(state.network) / 1e6:.2f} M parameters on {name}, steps {state.step} "
        f"to {settings.steps} of {settings.batch} crops of {settings.crop_px} px"
    )
