"""Times in turns: A B A B ..., so that whatever else the machine does meets both; ratios with their spread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Reading:
    """One call."""

    processor_s: float
    wall_s: float
    peak_bytes: int | None
    """Of an accelerator, above what was held. A process keeps the memory of earlier calls, so its own says nothing."""


def once(call: Callable[[], object], device: str) -> Reading:
    """Time one call, work on the device included."""
    cuda, held = device.startswith("cuda"), 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    wall, processor = time.perf_counter(), time.process_time()
    call()
    if cuda:
        torch.cuda.synchronize()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Reading(processor, wall, torch.cuda.max_memory_allocated() - held if cuda else None)


def in_turns(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[Reading]]:
    """Each call once unseen (first calls are dearer), then all of them round by round."""
    for call in calls.values():
        call()
    readings: dict[str, list[Reading]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            readings[name].append(once(call, device))
    return readings


def summary(readings: list[Reading], device: str) -> dict[str, float]:
    """Median and spread. Processor seconds on a processor, wall seconds on an accelerator, count as `seconds`."""
    seconds = [counted(r, device) for r in readings]
    found = {
        "seconds": statistics.median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "wall_s": statistics.median(r.wall_s for r in readings),
    }
    peaks = [r.peak_bytes for r in readings if r.peak_bytes is not None]
    return found | ({"peak_mb": max(peaks) / 2**20} if peaks else {})


def ratios(first: list[Reading], second: list[Reading], device: str) -> dict[str, Any]:
    """How many times sooner the second is, round by round."""
    each = [counted(a, device) / max(counted(b, device), 1e-9) for a, b in zip(first, second, strict=True)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each), "rounds": len(each)}


def counted(reading: Reading, device: str) -> float:
    """The clock that counts on this device."""
    return reading.wall_s if device.startswith("cuda") else reading.processor_s
