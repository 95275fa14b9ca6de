"""`make fuzz`: requests generated from the OpenAPI document against a real API; every answer is held against it.

    python -m tests.fuzz.run --seconds 600 --seed 1 --out benchmarks/results

All checks of schemathesis: no undocumented status, no 5xx but documented back-pressure, no schema violation, no header
missing, valid requests accepted and others refused, nothing usable after its deletion.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import record
from tests.service.test_process import Api

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What schemathesis said."""

    code: int
    cases: int
    text: str


ALL_PHASES = "examples,coverage,fuzzing,stateful"


def generated_requests(
    folder: Path, seconds: int, seed: int, cases_per_operation: int, phases: str = ALL_PHASES
) -> Outcome:
    """Run these phases against a fresh API process for at most so long."""
    api = Api(folder, MONONPHM_FREE_SPACE_RESERVE_BYTES="0", MONONPHM_MAX_OPEN_UPLOADS="100000")
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml"), "run",
        f"{api.url}/openapi.json", "--checks", "all", "--max-time", str(seconds), "--seed", str(seed),
        "-n", str(cases_per_operation), "--phases", phases, "--request-timeout", "30",
        "--continue-on-failure", "--no-color", "--warnings", "off",
        "--exclude-path", "/health/ready",  # no worker runs here, so it is 503 and means it
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": f"{FOLDER}", "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=seconds + 300
        )
        assert api.process.poll() is None, "the API died"
    finally:
        api.process.kill()
        api.process.wait()
    counted = re.search(r"^\s+(\d[\d,]*) generated", done.stdout, re.MULTILINE)
    return Outcome(done.returncode, int(counted[1].replace(",", "")) if counted else 0, done.stdout + done.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=500, help="at most so many for an operation and phase")
    parser.add_argument("--out", type=Path, help="folder of generated_requests.json and .md, to which the run is added")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        outcome = generated_requests(Path(name), arguments.seconds, arguments.seed, arguments.cases)
    print(outcome.text)
    if arguments.out:
        found = re.search(r"(\d+) unique failures?", outcome.text)
        row = record.run_of("tests.fuzz.run", time.monotonic() - began)
        row |= {"cases": outcome.cases, "broken promises": int(found[1]) if found else outcome.code}
        record.keep(arguments.out, "generated_requests", "Generated requests", row)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
