"""All measurements of one call, as one JSON document with the machine that made them."""

import datetime
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from mononphm_cli.benchmarking.engines import ENGINES, Modules, Published, Size, Subject, flops
from mononphm_cli.benchmarking.measure import in_turns, ratios, summary
from mononphm_core import numerics

SAMPLES = 32
"""A ray's, of the coarse and of the fine pass."""


def measure(
    size: Size, device: str, threads: int, compare: tuple[str, str], what: tuple[str, ...], points: int, rays: int,
    resolution: int, rounds: int, curves: bool,
) -> dict[str, Any]:  # fmt: skip
    """Two ways in turns at every question, then the second one's curves."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.UsageError("this machine has no usable CUDA device; try --device cpu")
    numerics.warm_up(threads)
    subject = Subject.of(size, device)
    ways = {name: _engine(name, subject) for name in dict.fromkeys(compare)}
    first, second = compare
    x = subject.points(points)
    questions: dict[str, Any] = {}
    for name in what:
        calls = {way: _call(engine, name, subject, x, rays, resolution) for way, engine in ways.items()}
        readings = in_turns(calls, rounds, device)
        row: dict[str, Any] = {way: summary(r, device) for way, r in readings.items()}
        row["ratio"] = ratios(readings[first], readings[second], device)
        if name in ("distance", "colour"):
            for way in ways:
                row[way]["queries_per_s"] = points / row[way]["seconds"]
                with_colour = name == "colour" or way == "published"
                row[way]["gflop_per_s"] = flops(subject.model.config, with_colour) * row[way]["queries_per_s"] / 1e9
        elif name in ("gradient", "descend"):
            for way in ways:
                row[way]["queries_per_s"] = points / row[way]["seconds"]
        questions[name] = row
    return {
        "machine": machine(device, threads),
        "settings": {"size": size, "points": points, "rays": rays, "resolution": resolution, "rounds": rounds},
        "ceiling_gflop_per_s": ceiling(subject, device),
        "questions": questions,
        "curves": _curves(ways[second], size, device, threads, rays, subject) if curves else {},
    }


def _engine(name: str, subject: Subject) -> Published | Modules:
    if name == "compiled" and subject.codes[0].device.type != "cpu":
        raise click.UsageError("the compiled field is for processors; compare `modules` on an accelerator")
    if name == "compiled":
        from mononphm_core.model.compiled.prepare import prepare

        prepare()
    return ENGINES[name](subject)


def _call(
    engine: Published | Modules, question: str, subject: Subject, x: torch.Tensor, rays: int, resolution: int
) -> Callable[[], object]:
    if question == "mesh":
        return lambda: engine.mesh(resolution)
    if question == "iteration":
        samples = subject.points(rays * SAMPLES)
        return lambda: (engine.distance(samples), engine.descend(samples))
    ask: Callable[[torch.Tensor], object] = getattr(engine, question)
    return lambda: ask(x)


def _curves(
    engine: Published | Modules, size: Size, device: str, threads: int, rays: int, subject: Subject
) -> dict[str, list[dict[str, float]]]:
    """Seconds of one call against what grows."""

    def at(value: float, call: Callable[[], object]) -> dict[str, float]:
        return {"at": value} | summary(in_turns({"one": call}, 2, device)["one"], device)

    def asked(count: int) -> Callable[[], object]:
        x = subject.points(count)
        return lambda: engine.distance(x)

    def iterated(count: int) -> Callable[[], object]:
        return _call(engine, "iteration", subject, subject.points(1), count, 0)

    def frames(count: int) -> Callable[[], object]:
        x = subject.points(2048)
        return lambda: [engine.gradient(x) for _ in range(count)]

    found = {
        "points": [at(n, asked(n)) for n in (1024, 4096, 16384)],
        "rays": [at(n, iterated(n)) for n in (rays // 4, rays // 2, rays)],
        "frames": [at(n, frames(n)) for n in (1, 2, 4, 8)],
    }
    if size == "small":
        found["resolution"] = [at(n, lambda n=n: engine.mesh(n)) for n in (32, 64, 128)]  # type: ignore[misc]
    if device == "cpu":
        rows = []
        for n in sorted({1, threads, os.cpu_count() or 1}):
            torch.set_num_threads(n)
            rows.append(at(n, asked(16384)))
        torch.set_num_threads(threads)
        found["threads"] = rows
    return found


def ceiling(subject: Subject, device: str) -> float:
    """GFLOP/s of one large float32 product as wide as the local networks: the floor of the field's time."""
    width = subject.model.config.ensemble.hidden_geo
    a, b = torch.randn(8192, width, device=device), torch.randn(width, width, device=device)
    best = min(summary(in_turns({"product": lambda: a @ b}, 5, device)["product"], device)["least_s"] for _ in range(3))
    return 2.0 * len(a) * width**2 / max(best, 1e-9) / 1e9


def machine(device: str, threads: int) -> dict[str, Any]:
    """What made the numbers."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "threads": threads,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
