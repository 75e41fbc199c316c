"""One stage of training: batches in, better weights out, a checkpoint now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ldp.network import SIZES, LDPNet, parameter_count
from training import checkpoint
from training.checkpoint import TrainState
from training.losses import BlurAwareMap, total
from training.processes import Processes
from training.settings import TrainSettings, learning_rate

Batch = tuple[Tensor, Tensor, Tensor]
"""Views (B, 6, S, S), blur map (B, 1, S, S), sharp (B, 3, S, S)."""
Feed = Callable[[TrainSettings, int, int, Processes], Iterable[Batch]]
"""(settings, stage, step, processes) -> this process's batches from that step on, `accumulate` of
them a step."""

REPORT_EVERY = 100
# Looking at the loss waits for the GPU, so it is not done at every step.
CHECK_EVERY = 20


def train(
    stages: list[TrainSettings],
    feed: Feed,
    out: Path,
    processes: Processes,
    blur_aware_map: BlurAwareMap | None = None,
) -> None:
    """Trains stage after stage, from the run's last checkpoint if there is one; out: its folder.

    Raises FloatingPointError where the loss or a gradient is not finite; the last checkpoint stays.
    ValueError where the checkpoint is of another network or recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    saved = checkpoint.read(out)
    first = 0 if saved is None else saved["stage"]
    if first >= len(stages):
        raise ValueError(f"{out}: its checkpoint is of stage {first + 1} of {len(stages)}")
    for stage in range(first, len(stages)):
        state = begin(stages[stage], stage, checkpoint.read(out), processes.device)
        _train_stage(state, stages, feed, out, processes, blur_aware_map)
        processes.wait()


def begin(
    settings: TrainSettings, stage: int, saved: dict[str, Any] | None, device: torch.device
) -> TrainState:
    """The state to go on from: what was saved in this stage, or at the end of the one before it,
    whose averaged weights this one starts from. Without a checkpoint it is the first stage's start.

    Raises ValueError where the checkpoint is of another network.
    """
    torch.manual_seed(settings.seed)
    config = replace(SIZES[settings.size], crop_px=settings.crop_px)
    network = LDPNet(config).to(device).to(memory_format=torch.channels_last)
    average = LDPNet(config).to(device)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(
        network.parameters(),
        settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
    )
    state = TrainState(network, average, optimizer, stage)
    if saved is None:
        return state
    same_stage = saved["stage"] == stage
    try:
        network.load_state_dict(saved["network" if same_stage else "average"])
        average.load_state_dict(saved["average"])
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint.CHECKPOINT} is not of a network of size {settings.size}; train it into "
            f"another folder ({str(error)[:200]})"
        ) from error
    if same_stage:
        optimizer.load_state_dict(saved["optimizer"])
        state.step = saved["step"]
    return state


def _train_stage(
    state: TrainState,
    stages: list[TrainSettings],
    feed: Feed,
    out: Path,
    processes: Processes,
    blur_aware_map: BlurAwareMap | None,
) -> None:
    settings, device, network = stages[state.stage], processes.device, state.network
    weights = settings.loss_weights
    parallel = DistributedDataParallel(network) if processes.count > 1 else None
    forward: Any = parallel or network
    if settings.compile:
        forward = torch.compile(forward, dynamic=False)
    if processes.first:
        print(_headline(state, stages, processes), flush=True)
    batches = iter(feed(settings, state.stage, state.step, processes))
    sums = torch.zeros(3, device=device)  # loss, gain in dB, norm of the gradient
    started, reported = time.monotonic(), state.step
    while state.step < settings.steps:
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings)
        state.optimizer.zero_grad()
        for part in range(settings.accumulate):
            views, amount, sharp = (x.to(device, non_blocking=True) for x in next(batches))
            views = views.contiguous(memory_format=torch.channels_last)
            last = part == settings.accumulate - 1
            with parallel.no_sync() if parallel and not last else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                    restored = forward(views, amount)
                restored = restored.float()
                loss = total(restored, sharp, views, amount, weights, blur_aware_map)
                (loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
            gain = gain_db(restored.detach(), views, sharp)
            sums[:2] += torch.stack([loss.detach(), gain]) / settings.accumulate
        sums[2] += torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_limit)
        state.optimizer.step()
        state.step += 1
        done = state.step == settings.steps
        follow(
            state.average, network, min(settings.ema_decay, (1 + state.step) / (10 + state.step))
        )
        saves = state.step % settings.save_every == 0 or done
        reports = state.step % REPORT_EVERY == 0 or done
        if saves or reports or state.step % CHECK_EVERY == 0:
            loss_sum, gain_sum, norm_sum = sums.tolist()
            if not (math.isfinite(loss_sum) and math.isfinite(norm_sum)):
                raise FloatingPointError(
                    f"the loss is {loss_sum} and its gradient {norm_sum} by step {state.step}; "
                    f"{out} holds the last checkpoint, lower the learning rate to go on from it"
                )
        if reports:
            count = state.step - reported
            seconds = (time.monotonic() - started) / count
            if processes.first:
                print(
                    f"step {state.step}/{settings.steps}  loss {loss_sum / count:.4f}  "
                    f"gain {gain_sum / count:+.2f} dB  {seconds:.3f} s/step",
                    flush=True,
                )
            started, reported = time.monotonic(), state.step
            sums.zero_()
        if saves and processes.first:
            checkpoint.save(out, state, settings, len(stages))


@torch.no_grad()
def follow(average: LDPNet, network: LDPNet, decay: float) -> None:
    """Moves the moving average of the weights 1 - decay of the way to the network's."""
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def gain_db(restored: Tensor, views: Tensor, sharp: Tensor) -> Tensor:
    """PSNR over that of the mean view, averaged over the batch; a scalar."""
    mean_view = (views[:, :3] + views[:, 3:]) / 2
    before = ((mean_view - sharp) ** 2).mean((1, 2, 3))
    after = ((restored - sharp) ** 2).mean((1, 2, 3))
    return 10 * torch.log10((before + 1e-8) / (after + 1e-8)).mean()


def _headline(state: TrainState, stages: list[TrainSettings], processes: Processes) -> str:
    settings, device = stages[state.stage], processes.device
    name = f"the CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = f"{processes.count} x {torch.cuda.get_device_name(device)}"
    return (
        f"stage {state.stage + 1} of {len(stages)}, {settings.size}: "
        f"{parameter_count(state.network) / 1e6:.2f} M parameters on {name}, steps {state.step} "
        f"to {settings.steps} of {settings.batch} crops of {settings.crop_px} px"
    )
