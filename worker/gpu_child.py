"""The one process that imports torch and holds the device and the warm model. The supervisor starts it.

Commands come as JSON lines on standard input (`run`, `cancel`, `exit`), answers leave on standard output (`ready`,
`step`, `done`, `failed`, `cancelled`). Both are moved out of reach first: no library can print into the protocol.
"""

import argparse
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mononphm_core import errors as core
from worker import devices, logs
from worker.ledger.errors import Cancelled
from worker.ledger.failure import failure_of
from worker.ledger.lease import StepLike
from worker.ledger.order import Order

log = logging.getLogger(__name__)

STEP_INTERVAL_S = 0.05
"""Steps in between are not sent: the pipe carries signs of life, not the loss curve."""

LEAVING_S = 1.0
"""When the supervisor is gone, or wants us gone, a pipeline that runs on holds the process no longer than this."""

PR_SET_PDEATHSIG = 1
AUTOGROUP = Path("/proc/self/autogroup")


class Wire:
    """Both directions of the protocol; a thread of its own reads, so a cancel arrives while the pipeline runs."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._answers = answers
        self._sending = threading.Lock()
        self._cancelled: set[int] = set()
        self.orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, args=(commands,), name="commands", daemon=True).start()

    def send(self, kind: str, **values: Any) -> None:
        """Write one answer."""
        line = json.dumps({"kind": kind, "rss": resident_bytes(), **values}, default=str).encode() + b"\n"
        with self._sending:
            self._answers.write(line)
            self._answers.flush()

    def is_cancelled(self, fence: int) -> bool:
        """Whether the supervisor asked this attempt to stop."""
        return fence in self._cancelled

    def _read(self, commands: BinaryIO) -> None:
        for line in commands:
            message = json.loads(line)
            if message["kind"] == "cancel":
                self._cancelled.add(message["fence"])
            elif message["kind"] == "run":
                self._cancelled.clear()
                self.orders.put(message)
            else:
                break
        self.orders.put(None)
        time.sleep(LEAVING_S)
        os._exit(0)


def main() -> None:
    """Serve orders until told to leave."""
    arguments = _arguments()
    die_with_parent(arguments.parent)
    let_others_go_first(arguments.nice)
    commands, answers = _take_the_pipes()
    faulthandler.enable()
    logs.configure(arguments.log_level)
    wire = Wire(commands, answers)
    try:
        device = choose_device(arguments.device, arguments.threads)
        run, prepare = load_pipeline(arguments.pipeline)
        wire.send("ready", pid=os.getpid(), device=device, model=_prepared(prepare))
    except Exception:
        log.critical("the child cannot start", exc_info=True)
        os._exit(1)
    while (message := wire.orders.get()) is not None:
        serve(wire, run, Order.from_json(message["order"]).on(device), Path(message["workspace"]), message["fence"])
    logging.shutdown()
    os._exit(0)  # the reading thread still waits on its pipe; the interpreter's own end would wait for it


def serve(wire: Wire, run: Callable[..., dict[str, Any]], order: Order, workspace: Path, fence: int) -> None:
    """Run one order; whatever happens in the pipeline becomes one answer."""
    context: dict[str, Any] = {"job_id": order.job_id, "fence": fence, "stage": None}
    logs.job_context.set(context)
    sent_at = 0.0

    def on_step(step: StepLike) -> None:
        nonlocal sent_at
        if wire.is_cancelled(fence):
            raise Cancelled(order.job_id)
        stage = str(getattr(step.stage, "value", step.stage))
        now = time.monotonic()
        if stage != context["stage"] or now - sent_at >= STEP_INTERVAL_S or step.step >= step.total:
            sent_at, context["stage"] = now, stage
            fields = {"frames_done": step.frames_done, "frames_total": step.frames_total, "message": step.message}
            wire.send("step", fence=fence, stage=stage, step=step.step, total=step.total, **fields)

    try:
        manifest = run(order, workspace, on_step)
    except Cancelled:
        wire.send("cancelled", fence=fence)
    except Exception as error:
        log.warning("the pipeline failed: %s", error, exc_info=not isinstance(error, core.MonoNPHMError))
        wire.send("failed", fence=fence, failure=failure_of(error, context["stage"]).to_json(), tainted=taints(error))
    else:
        wire.send("done", fence=fence, manifest=manifest)
    finally:
        logs.job_context.set(None)


def taints(error: Exception) -> bool:
    """Whether the process should not serve another job: after a lack of memory, a device error, or the unforeseen."""
    foreseen = (core.InputError, core.ConfigError, core.AssetError, core.SolveError)
    return not isinstance(error, foreseen)


def choose_device(wanted: str, threads: int | None) -> str:
    """The one place where torch is woken and the device is chosen. `none` leaves torch asleep."""
    if wanted == "none":
        return wanted
    import torch

    from mononphm_core import numerics

    numerics.warm_up(threads)
    if wanted == "cpu" or not torch.cuda.is_available():
        return "cpu" if wanted == "auto" else wanted
    return own_gpu(wanted, [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())])


def own_gpu(wanted: str, uuids: Sequence[str]) -> str:
    """A GPU that no other worker of this machine has: the named one, or the first free. RuntimeError: there is none."""
    first = 0 if wanted in ("auto", "cuda") else int(wanted.removeprefix("cuda:"))
    choice = uuids if wanted in ("auto", "cuda") else uuids[first : first + 1]
    taken = devices.take_one(choice, devices.lock_folder())
    if taken is None:
        raise RuntimeError(f"{wanted}: every GPU of that name has a worker already; start one worker for each GPU")
    return f"cuda:{first + taken}"


def load_pipeline(name: str) -> tuple[Callable[..., dict[str, Any]], Callable[[], dict[str, Any]] | None]:
    """`module:function`, and the module's optional `prepare`: load the default model now and say which it is."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(module_name)
    return getattr(module, function), getattr(module, "prepare", None)


def _prepared(prepare: Callable[[], dict[str, Any]] | None) -> dict[str, Any] | None:
    if prepare is None:
        return None
    try:
        return prepare()
    except core.AssetError as error:  # a job may still name another model
        log.error("the default model cannot be loaded: %s", error)
        return None


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the supervisor dies, whatever kills it: the device must not stay taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


def let_others_go_first(niceness: int) -> None:
    """Lower the priority of this process, and of all that it starts, against the rest of the machine.

    Where Linux shares processor time by session (sched(7), autogroup), niceness counts within a session only; ours is
    our own (`start_new_session`), so it is lowered as a whole, too.
    """
    os.nice(niceness)
    with suppress(OSError):
        AUTOGROUP.write_text(str(niceness))


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _take_the_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's two pipes under other numbers; 0 and 1 become /dev/null and the log."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return commands, answers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", default="worker.pipeline:run")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args()


if __name__ == "__main__":
    main()
