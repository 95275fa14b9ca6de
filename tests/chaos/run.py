"""`make chaos`: kill -9 everything at random and at named places, for as long as you like, and count what was lost.

    python -m tests.chaos.run --setup embedded --seconds 1800 --out benchmarks/results

The result is a Markdown page: command, machine, what was done, what was found. Exit code 1 if anything was lost.
"""

import argparse
import json
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import sqlalchemy as sa

from tests.chaos.oracle import Users
from tests.chaos.system import SETUPS, System, chosen
from tests.chaos.verdict import Verdict, judge
from worker.ledger import Ledger, schema

FAILPOINTS = "*:0.002"


class Storm:
    """One run: users submit, things die, then everything is looked at."""

    def __init__(self, folder: Path, setup: str, *, seed: int, lease_s: float, redis: Path | None = None) -> None:
        self.done: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._seed = seed
        self._folder = folder
        self._losses: list[tuple[float, str, int]] = []
        self.system = System(folder, setup, lease_s=lease_s, failpoints=FAILPOINTS, redis=redis)
        self.users: Users | None = None

    def rage(self, seconds: float, pause_s: float, users: int = 3) -> None:
        """Let users submit and things die for so long."""
        self.users = Users(self.system.url, self._folder / "accepted.jsonl", users, 0.3, self._seed)
        deadline = time.monotonic() + seconds
        sleepers = threading.Thread(target=self._put_to_sleep, args=(deadline,))
        sleepers.start()
        while time.monotonic() < deadline:
            time.sleep(self._chance.uniform(0.3, 1.7) * pause_s)
            how, role = chosen(self._chance, self.system.roles)
            if role != self.system.asleep:
                self._strike(how, role)
        sleepers.join()
        self.users.stop()
        self.system.disarm()

    def verdict(self, patience_s: float = 240.0) -> Verdict:
        """What is left of the promises."""
        assert self.users is not None
        _until_ready(self.system.url)
        found = judge(self.system.url, self.system.book, self.users.promises, patience_s)
        found.surprises += self.users.surprises
        return found

    def recoveries(self) -> list[float]:
        """Seconds from the death of a worker to the next attempt at the job that it held."""
        return sorted(filter(None, (recovery(self.system.book, *loss) for loss in self._losses)))

    def failpoint_deaths(self) -> Counter[str]:
        """How often each named place was the last."""
        log = self.system.failpoint_log
        return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()

    def _strike(self, how: str, role: str) -> None:
        if how == "child":
            self.done["child killed"] += self.system.kill_child(role)
        elif how == "broker":
            self.done["broker killed or wiped"] += self.system.kill_broker()
        else:
            held = self.system.kill(role)
            self.done[f"{how} killed"] += 1
            if held is not None:
                self._losses.append((time.time(), *held))

    def _put_to_sleep(self, deadline: float) -> None:
        """One writer after the other sleeps past its lease; the rest of the storm goes on around it."""
        chance = random.Random(self._seed + 1)
        workers = [role for role in self.system.roles if role != "api"]
        while time.monotonic() + self.system.lease_s < deadline:
            time.sleep(chance.uniform(0.0, 4.0))
            self.done["writer stopped past its lease"] += self.system.suspend_past_lease(chance.choice(workers))


def recovery(book: Ledger, at: float, job_id: str, fence: int) -> float | None:
    """Seconds until the attempt after this one began; None: the job had no other (it was just being published)."""
    table = schema.attempts
    query = sa.select(sa.func.min(table.c.started_at)).where(table.c.job_id == job_id, table.c.fence > fence)
    with book.reading() as tx:
        started = tx.execute(query).scalar_one()
    return None if started is None else max(started.timestamp() - at, 0.0)


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)


def quantile(sorted_seconds: list[float], share: float) -> str:
    """The value below which this share lies, in words."""
    if not sorted_seconds:
        return "none measured"
    return f"{sorted_seconds[min(int(share * len(sorted_seconds)), len(sorted_seconds) - 1)]:.1f} s"


def page(storm: Storm, verdict: Verdict, arguments: argparse.Namespace, seconds: float) -> str:
    """The result in Markdown."""
    deaths, recoveries = storm.failpoint_deaths(), storm.recoveries()
    killed = sum(count for name, count in storm.done.items() if name.endswith("killed")) + sum(deaths.values())
    promised = len(storm.users.promises) if storm.users else 0
    median, p99 = quantile(recoveries, 0.5), quantile(recoveries, 0.99)
    places = ", ".join(f"{name} {count}" for name, count in sorted(deaths.items())) or "none"
    rows = [
        ("jobs promised (202 seen, fsynced outside)", promised),
        ("kill -9 and deaths at failpoints", killed),
        *sorted(storm.done.items()),
        ("deaths at failpoints", sum(deaths.values())),
        ("**promised jobs lost**", len(verdict.lost)),
        ("**published or ended twice**", len(verdict.twice)),
        ("**wrong bytes**", len(verdict.wrong_bytes)),
        ("**orphan files after the janitor**", len(verdict.orphans)),
        ("**wishes never or wrongly answered**", len(verdict.surprises)),
        ("succeeded", verdict.succeeded),
        ("ended as worker_lost: three attempts killed", verdict.poisoned),
        (f"recovery after a worker's death, {len(recoveries)} measured: median", median),
        ("recovery p99", p99),
    ]
    machine = f"{psutil.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"## {arguments.setup}", "",
        f"`python -m tests.chaos.run --setup {arguments.setup} --seconds {arguments.seconds:g} --seed {arguments.seed}"
        f" --lease {arguments.lease:g} --pause {arguments.pause:g}`: {seconds:.0f} s on {machine},"
        f" {time.strftime('%Y-%m-%d', time.gmtime())}.", "",
        "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "",
        f"Deaths by place: {places}.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", choices=SETUPS, default="embedded")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lease", type=float, default=15.0)
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between two kills")
    parser.add_argument("--redis", type=Path, help="a redis-server that is not installed where Debian puts it")
    parser.add_argument("--out", type=Path, help="folder for chaos_<setup>.md")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos") as name:
        storm = Storm(Path(name), arguments.setup, seed=arguments.seed, lease_s=arguments.lease, redis=arguments.redis)
        try:
            storm.rage(arguments.seconds, arguments.pause)
            verdict = storm.verdict()
            text = page(storm, verdict, arguments, time.monotonic() - began)
        finally:
            storm.system.stop()
    print(text)
    if not verdict.is_clean:
        print(json.dumps(vars(verdict), indent=1)[:6000], file=sys.stderr)
    if arguments.out:
        (arguments.out / f"chaos_{arguments.setup}.md").write_text(text)
    return 0 if verdict.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
