"""Train a network, on pairs rendered from photos or on the DPDD data set.

    python -m training.train configs/train-tiny.toml --photos ./photos --out ./runs/tiny
    python -m training.train configs/train-small.toml --minutes 12 --photos ./a --photos ./b --out R
    python -m training.train configs/ldp-dpdd.toml --dpdd ./dd_dp_dataset_canon --out ./runs/ldp
    python -m training.train configs/vitdeblur-dpdd.toml --dpdd DPDD --encoder MAE.pth --out RUN

The same command resumes from RUN/checkpoint.pt, exactly where it was. RUN receives:
    weights.safetensors          the moving average of the weights, every `save_every` steps
    weights-best.safetensors     the same where validation found it best: on the scenes of
                                 --validate by exposure-fitted PSNR, else on rendered pairs by PSNR
    metrics.jsonl, tensorboard/  figures; the second where TensorBoard is installed
    samples/                     mean view, restored, true, blur map, side by side
On several GPUs: torchrun --nproc-per-node 4 -m training.train, then the same.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ldp.devices import choose_precision
from ldp.errors import LdpError
from ldp.models.network import mean_view, parameter_count
from training import checkpoint
from training.checkpoint import TrainState, update_average
from training.errors import RecipeError, TrainingError
from training.logs import Meter, RunLog
from training.objectives import objective_of
from training.processes import joined
from training.run import Run, TrainingInputs, prepare
from training.schedule import Schedule, TimeBudget
from training.settings import read_settings
from training.validation import RealValidation, validate

CHECK_EVERY = 20
"""Steps between two looks at the loss, at which processes also agree on stopping: both wait for the
GPU."""


def train(run: Run) -> bool:
    """Train from the run's last checkpoint, if there is one; return whether it came to the end.

    Raises FloatingPointError where the loss, a gradient or a weight is not finite; the last
    checkpoint stays. RecipeError where the checkpoint is of another network or recipe.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    saved = checkpoint.read(run.out)
    first = 0 if saved is None else saved["stage"]
    if first >= len(run.stages):
        raise RecipeError(f"{run.out}: its checkpoint is of stage {first + 1} of {len(run.stages)}")
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
            state = checkpoint.begin(
                run.stages[stage], stage, saved, run.processes.device, run.initial
            )
            if not train_stage(run, state, log):
                return False
            run.processes.wait()
    finally:
        if log:
            log.close()
    return True


def train_stage(run: Run, state: TrainState, log: RunLog | None) -> bool:
    """Train to the stage's end, or to the time to stop; return whether it came to the end.

    log: None in all processes but the first.
    """
    settings, processes, device = run.stages[state.stage], run.processes, run.processes.device
    network, optimizer = state.network, state.optimizer
    parallel = DistributedDataParallel(network) if processes.count > 1 else None
    forward: Callable[[Tensor, Tensor], object] = parallel or network
    objective = objective_of(settings, run.blur_aware_map)
    if settings.compile:
        forward = torch.compile(forward, dynamic=False)
    schedule = Schedule(settings, processes, run.budget, state.spent_s)
    # Where the hardware has no bfloat16 products it would be the slower way.
    narrow = settings.bf16 and choose_precision(device) == torch.bfloat16
    if log:
        print(_headline(run, state, schedule), flush=True)
    batches = iter(run.source(settings, state.stage, state.step, processes))
    meter = Meter(device, state.step, settings.batch)
    stop = False

    while not schedule.ended(state.step) and not stop:
        # The step: gradients of all passes, limited, then the weights and their average.
        rate = schedule.rate(state.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        for part in range(settings.accumulate):
            last = part == settings.accumulate - 1
            with parallel.no_sync() if parallel and not last else nullcontext():
                views, blur, sharp = (x.to(device, non_blocking=True) for x in next(batches))
                batch = (views, blur, sharp)
                with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
                    found = forward(*objective.inputs(batch))
                restored, terms = objective.terms(found, batch)
                (terms.loss / settings.accumulate).backward()  # type: ignore[no-untyped-call]
            meter.add_pass(terms, gain_db(restored.detach(), views, sharp), settings.accumulate)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_limit)
        meter.add_norm(norm)
        optimizer.step()
        state.step += 1
        warm_decay = (1 + state.step) / (10 + state.step)
        update_average(state.average, network, min(settings.ema_decay, warm_decay))

        # What is due after it: a look at the loss, a report, a validation, a checkpoint.
        check = state.step % CHECK_EVERY == 0
        if check or processes.count == 1:
            schedule.update()
        ended = schedule.ended(state.step)
        check = check or ended
        if check or processes.count == 1:
            stop = processes.any(time.monotonic() >= run.stop_at)
        report = ended or stop or state.step % settings.report_every == 0
        score = run.validation is not None and (ended or state.step % settings.validate_every == 0)
        save = ended or stop or score or state.step % settings.save_every == 0
        if check or report or save:
            meter.check(state.step, run.out)
        if report:
            _report(run, state, schedule, meter, rate, log)
        if save and log:
            state.spent_s = schedule.spent_s(state.step)
            seconds = _save(run, state, log, score)
            meter.pause(seconds)
            schedule.reserve(seconds)
    return schedule.ended(state.step)


def _report(
    run: Run,
    state: TrainState,
    schedule: Schedule,
    meter: Meter,
    rate: float,
    log: RunLog | None,
) -> None:
    """Print and log the averages since the last report; the meter begins anew in all processes."""
    figures = meter.average(state.step, rate)
    if log:
        left_s = schedule.left_s(state.step, figures.seconds_per_step)
        print(figures.line(schedule.position(state.step), left_s), flush=True)
        log.train(state.stage, state.step, run.total_step(state.stage, state.step), figures)


def _save(run: Run, state: TrainState, log: RunLog, score: bool) -> float:
    """Write a checkpoint, after a validation if `score`; return the seconds that it took."""
    started = time.monotonic()
    score_db = _validate(run, state, log) if score else None
    name = run.validation.name if run.validation else ""
    settings, stages = run.stages[state.stage], len(run.stages)
    checkpoint.save(run.out, state, settings, stages, score_db, name, notes=run.notes)
    return time.monotonic() - started


def _validate(run: Run, state: TrainState, log: RunLog) -> float:
    """Score the averaged weights, print and log it; return the score in dB."""
    assert run.validation
    checkpoint.check_finite(state, run.out)
    if state.best and state.best.evaluation_set != run.validation.name:
        # A score on other pictures is no score to beat.
        state.best = None
    found = validate(state.average, run.validation, run.processes.device)
    print(found.scores.line(), flush=True)
    at = run.total_step(state.stage, state.step)
    log.figures("validation", state.stage, state.step, at, asdict(found.scores))
    for name, strip in found.samples:
        log.picture(name, at, strip)
    return found.scores.score_db


def gain_db(restored: Tensor, views: Tensor, sharp: Tensor) -> Tensor:
    """Return the PSNR over that of the mean view, averaged over the batch; a scalar in dB."""
    before = ((mean_view(views) - sharp) ** 2).mean((1, 2, 3))
    after = ((restored - sharp) ** 2).mean((1, 2, 3))
    return 10 * torch.log10((before + 1e-8) / (after + 1e-8)).mean()


def _headline(run: Run, state: TrainState, schedule: Schedule) -> str:
    settings, device = run.stages[state.stage], run.processes.device
    name = f"the CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = f"{run.processes.count} x {torch.cuda.get_device_name(device)}"
    return (
        f"stage {state.stage + 1} of {len(run.stages)}, {settings.size}: "
        f"{parameter_count(state.network) / 1e6:.2f} M parameters on {name}, steps {state.step} "
        f"{schedule.goal()} of {settings.batch} crops of {settings.crop_px} px"
    )


def main() -> None:
    """Command line."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a TOML file such as configs/train-tiny.toml")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--photos",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of sharp photos; may be given several times",
    )
    source.add_argument("--dpdd", type=Path, help="folder of the DPDD data set")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value for a key of the file, in every stage; may be given several times",
    )
    parser.add_argument(
        "--init",
        default="",
        metavar="NAME|FILE",
        help="begin with these weights; give it again to go on",
    )
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="FILE",
        help="for ViTDeblur: begin with the first blocks of this masked autoencoder (MAE ViT-B/16)",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="for what is prepared, RUN/cache by default"
    )
    parser.add_argument(
        "--validate",
        type=Path,
        metavar="DIR",
        help="real scenes to validate on: NAME_L.png, NAME_R.png, NAME_gt.png, or DPDD with val",
    )
    parser.add_argument("--skip-rows", type=int, default=0, help="rows of these not scored")
    parser.add_argument(
        "--stop-after",
        type=float,
        metavar="MINUTES",
        help="save and stop then; the same command goes on",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="train so long instead of the recipe's steps, all commands that resume it together; "
        "the learning rate falls to its end with the time",
    )
    args = parser.parse_args()
    if args.minutes is not None and args.minutes <= 0:
        parser.error(f"--minutes {args.minutes:g}: expected more than 0")
    budget = None if args.minutes is None else TimeBudget(args.minutes, started)
    stop_at = math.inf if args.stop_after is None else started + 60 * args.stop_after
    validation = RealValidation(args.validate, args.skip_rows) if args.validate else None
    inputs = TrainingInputs(
        tuple(args.photos), args.dpdd, validation, args.cache, args.init, encoder=args.encoder
    )
    try:
        with joined() as processes:
            stages = read_settings(args.config, args.set)
            run = prepare(stages, inputs, args.out, processes, stop_at=stop_at, budget=budget)
            ended = train(run)
            if not ended and processes.first:
                print(f"stopped after {args.stop_after:g} minutes; run it again to go on")
    except (ValueError, FloatingPointError, OSError, LdpError, TrainingError) as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
