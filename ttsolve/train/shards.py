"""One training step shared by two processes: each takes a shard, gradients are averaged.

For models this small, two processes with one thread each are half as fast again as one process
with two threads, which wait for each other at every operation. A run in one process takes both
shards itself and learns the same.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessContext, ProcessException, spawn

from ttsolve.errors import TtsolveError
from ttsolve.train.precision import mixed

SHARDS = 2
J = TypeVar("J")
R = TypeVar("R")


def run(
    train: Callable[[J, Callable[[R], None]], None], job: J, report: Callable[[R], None]
) -> None:
    """Run `train(job, report)`, on a CPU with cores enough in `SHARDS` processes."""
    if torch.cuda.is_available() or _cores() < SHARDS:
        train(job, report)
    else:
        run_sharded(train, job, report)


def run_sharded(
    train: Callable[[J, Callable[[R], None]], None], job: J, report: Callable[[R], None]
) -> None:
    """Run `train(job, report)` in `SHARDS` processes; what the first one reports is reported here.

    Raises:
        TtsolveError: as a process raised it.
    """
    messages: Queue[Any] = multiprocessing.get_context("spawn").Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (train, job, f"file://{folder}/meet", messages)
        running = spawn(_process, arguments, nprocs=SHARDS, join=False)
        try:
            while (message := _next(messages, running)) is not None:
                if isinstance(message, TtsolveError):
                    raise message
                report(message)
            while not running.join():
                pass
        finally:
            for process in running.processes:
                process.kill()
                process.join()


def _next(messages: Queue[Any], running: ProcessContext) -> Any:
    """The next report or error; None at the end. Raises when a process has died."""
    while True:
        try:
            return messages.get(timeout=1.0)
        except queue.Empty:
            try:
                running.join(timeout=0.01)
            except ProcessException:
                if messages.empty():  # else it died of what the message says
                    raise


def _process(
    rank: int, train: Callable[..., None], job: object, meet: str, messages: Queue[Any]
) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=SHARDS)
    try:
        train(job, messages.put)
    except TtsolveError as error:
        messages.put(error)
        return
    if rank == 0:
        messages.put(None)
    dist.barrier()
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """A killed command must not go on training (and saving) unseen."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_first() -> bool:
    """Whether this process reports and saves."""
    return not dist.is_initialized() or dist.get_rank() == 0


def learn(
    model: nn.Module,
    tuning: list[torch.optim.Optimizer],
    rate: float,
    loss_of: Callable[[int], Tensor],
) -> float:
    """One optimiser step on the mean of all shards' losses; the mean over this process's own."""
    for optimiser in tuning:
        for group in optimiser.param_groups:
            group["lr"] = rate
    own = range(dist.get_rank(), dist.get_rank() + 1) if dist.is_initialized() else range(SHARDS)
    total = 0.0
    for shard in own:
        with mixed():
            loss = loss_of(shard)
        (loss / SHARDS).backward()
        total += loss.item()
    _share_gradients(model)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in tuning:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return total / len(own)


def _share_gradients(model: nn.Module) -> None:
    """Add up the processes' gradients."""
    if dist.is_initialized():
        gradients = [w.grad for w in model.parameters() if w.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        totals = flat.split([g.numel() for g in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))
