"""`python -m tests.deploy.build_without_an_engine FOLDER`: every instruction of Dockerfile.gpu in bare Debian trees.

For machines without a container engine: needs root, mmdebstrap, unshare, and package registries as this machine reaches
them. Both bases are Debian 12 (`STANDS_IN` says what is exchanged for that); everything else is executed as it stands:
RUN in a chroot with its mounts, COPY between the stages, ENV, ARG, USER. Then both images are started as the compose
file starts them (entry, uid 10001, root read-only, /tmp a tmpfs, /data shared), and both health checks must pass.
Takes minutes and about 20 GB; docs/containers.md tells what it found.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.containers import ROOT, Instruction, instructions

BASES = {"PYTHON_IMAGE": "python3.11,python3.11-venv,ca-certificates", "CUDA": "ca-certificates"}
STANDS_IN = {
    "python3.12-venv": "python3.11-venv",
    "python3.12": "python3.11",
    "libglib2.0-0t64": "libglib2.0-0",
}
"""Ubuntu 24.04 -> Debian 12. The hashes of worker.lock cover the wheels of both versions of Python."""
OF_HERE = re.compile(r"(PIP_CERT|PIP_DEFAULT_TIMEOUT|SSL_|REQUESTS_|CURL_|http_|https_|no_|HTTP_|HTTPS_|NO_)\w*$")
"""How this machine reaches its registries; nothing of it enters the images."""
BORROWED = ("/etc/resolv.conf", "/etc/pip.conf", "/root/.config/pip", "/etc/ssl/certs/ca-certificates.crt")
NOBODY = "10001:10001"


class Build:
    """The trees of the stages in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, dict[str, str]] = {}
        self.workdir: dict[str, str] = {}
        self.user: dict[str, str] = {}
        self.last: dict[str, dict[str, list[str]]] = {}
        self.done = 0

    def tree(self, stage: str) -> Path:
        return self.folder / stage

    def run(self, all_of_them: list[Instruction]) -> None:
        """One instruction after the other."""
        for instruction in all_of_them:
            print(f"{instruction.stage or '-':<16} {instruction.word} {instruction.text[:110]}", flush=True)
            began = time.monotonic()
            getattr(self, f"_{instruction.word.lower()}", self._note)(instruction)
            self.done += 1
            if instruction.word in ("FROM", "RUN"):
                print(f"{'':<16} {time.monotonic() - began:.0f} s", flush=True)

    def _from(self, at: Instruction) -> None:
        base = at.text.split()[0]
        tree = self.tree(at.stage)
        shutil.rmtree(tree, ignore_errors=True)
        self.env[at.stage], self.workdir[at.stage], self.user[at.stage], self.last[at.stage] = {}, "/", "0:0", {}
        if base == "scratch":
            tree.mkdir()
        elif self.tree(base).is_dir():
            copy(self.tree(base), tree)
            self.env[at.stage] = dict(self.env[base])
        else:
            copy(self._debian(next(name for name in BASES if name in base)), tree)

    def _debian(self, name: str) -> Path:
        """A bare Debian, made once."""
        tree = self.folder / f"base-{name}"
        if not tree.is_dir():
            command = ["mmdebstrap", "--variant=minbase", "--quiet", f"--include={BASES[name]}", "bookworm", str(tree)]
            subprocess.run(command, check=True)
            if name == "PYTHON_IMAGE":
                (tree / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
        return tree

    def _copy(self, at: Instruction) -> None:
        parts = at.text.split()
        flags = dict(part[2:].split("=", 1) for part in parts if part.startswith("--"))
        *sources, target = [part for part in parts if not part.startswith("--")]
        origin = self.tree(flags["from"]) if "from" in flags else ROOT
        place = self.tree(at.stage) / (self.workdir[at.stage] + "/" + target).lstrip("/").replace("//", "/")
        if target.startswith("/"):
            place = self.tree(at.stage) / target.lstrip("/")
        for source in sources:
            found = origin / source.lstrip("/")
            if found.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                copy(found, place)
            else:
                into = place / found.name if target.endswith("/") else place
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)
                if "chmod" in flags:
                    into.chmod(int(flags["chmod"], 8))

    def _workdir(self, at: Instruction) -> None:
        self.workdir[at.stage] = at.text
        (self.tree(at.stage) / at.text.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _env(self, at: Instruction) -> None:
        for word in shlex.split(at.text):
            name, _, value = word.partition("=")
            known = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} | self.env[at.stage]
            self.env[at.stage][name] = re.sub(
                r"\$\{?(\w+)\}?", lambda found, known=known: known.get(found[1], ""), value
            )

    def _arg(self, at: Instruction) -> None:
        if at.stage:
            name, _, value = at.text.partition("=")
            self.env[at.stage].setdefault(name, value.strip('"'))

    def _user(self, at: Instruction) -> None:
        self.user[at.stage] = at.text

    def _run(self, at: Instruction) -> None:
        mounts, text = [], at.text
        while found := re.match(r"--mount=(\S+)\s+", text):
            mounts.append(dict(part.split("=", 1) for part in found[1].split(",")))
            text = text[found.end() :]
        for theirs, ours in STANDS_IN.items():
            text = text.replace(theirs, ours)
        with self._lent(at.stage):
            binds = [self._bind(at.stage, mount) for mount in mounts]
            self.inside(at.stage, text, binds=binds).check_returncode()

    def _bind(self, stage: str, mount: dict[str, str]) -> tuple[Path, str]:
        if mount["type"] == "cache":
            source = self.folder / "cache"
        else:
            source = self.tree(mount["from"]) / mount["source"].lstrip("/")
        source.mkdir(parents=True, exist_ok=True)
        return source, mount["target"]

    def _note(self, at: Instruction) -> None:
        """HEALTHCHECK, ENTRYPOINT and CMD are kept for the start; VOLUME, EXPOSE and STOPSIGNAL change no file."""
        if found := re.search(r"\[.*\]$", at.text):
            self.last[at.stage][at.word] = json.loads(found[0])

    @contextmanager
    def _lent(self, stage: str) -> Iterator[None]:
        """The files by which this machine reaches its registries, in the tree while something is installed."""
        lent: list[tuple[Path, Path | None]] = []
        for name in BORROWED:
            source, place = Path(name), self.tree(stage) / name.lstrip("/")
            if source.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                own = place.rename(place.with_name(f"{place.name}.own")) if place.exists() else None
                subprocess.run(["cp", "-aL", source, place], check=True)
                lent.append((place, own))
        try:
            yield
        finally:
            for place, own in lent:
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
                if own is not None:
                    own.rename(place)

    def inside(
        self, stage: str, text: str, binds: list[tuple[Path, str]] | None = None, sealed: bool = False, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """A shell line in a stage's tree; sealed: as the container runs, with its user and a read-only root."""
        return subprocess.run(self.command(stage, text, binds or [], sealed), env=self.environment(stage, sealed, env))

    def environment(self, stage: str, sealed: bool, more: dict[str, str]) -> dict[str, str]:
        lent = {} if sealed else {name: value for name, value in os.environ.items() if OF_HERE.match(name)}
        plain = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        return plain | lent | self.env[stage] | more

    def command(self, stage: str, text: str, binds: list[tuple[Path, str]], sealed: bool) -> list[str]:
        tree = self.tree(stage)
        lines = [f"mount --bind {tree} {tree}", f"mount -t proc proc {tree}/proc", f"mount --rbind /dev {tree}/dev"]
        for source, target in binds:
            place = tree / target.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind {source} {place}")
        if sealed:
            lines += [f"mount -o remount,bind,ro {tree}", f"mount -t tmpfs tmpfs {tree}/tmp -o mode=1777"]
        user = self.user[stage] if sealed else "0:0"
        inner = f"cd {'/' if sealed else self.workdir[stage]} && {text}"
        lines.append(f"exec chroot --userspec={user} {tree} /bin/sh -c {shlex.quote(inner)}")
        return ["unshare", "--mount", "--propagation=private", "/bin/sh", "-ec", "\n".join(lines)]

    def started(self, stage: str, port: int, data: Path, **env: str) -> subprocess.Popen[bytes]:
        """ENTRYPOINT and CMD as the container's first process."""
        words = [*self.last[stage]["ENTRYPOINT"], *self.last[stage]["CMD"]]
        line = "exec " + shlex.join(words).replace(" 8000", f" {port}").replace("0.0.0.0", "127.0.0.1")
        return subprocess.Popen(
            self.command(stage, line, [(data, "/data")], sealed=True), env=self.environment(stage, True, env)
        )

    def healthy(self, stage: str, port: int, within_s: float) -> bool:
        """Whether HEALTHCHECK passes, asked from inside."""
        words = [word.replace("api:8000", "127.0.0.1:8000").replace(":8000/", f":{port}/") for word in
                 self.last[stage]["HEALTHCHECK"]]  # fmt: skip
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if self.inside(stage, shlex.join(words) + " 2>/dev/null", sealed=True).returncode == 0:
                return True
            time.sleep(3)
        return False


def copy(source: Path, target: Path) -> None:
    """A tree with its links, owners and times."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=18123)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    build = Build(folder)
    build.run(instructions())
    data = folder / "data"
    data.mkdir(exist_ok=True)
    os.chown(data, *map(int, NOBODY.split(":")))
    api = build.started("service", arguments.port, data, MONONPHM_MODELS_DIR="/opt/models")
    worker = build.started("worker", arguments.port, data, MONONPHM_DEVICE="cpu", MONONPHM_PREPARE_KERNELS="1")
    try:
        assert build.healthy("service", arguments.port, 120), "the API's health check does not pass"
        print("service          its HEALTHCHECK passes", flush=True)
        assert build.healthy("worker", arguments.port, 400), "the worker's health check does not pass"
        print("worker           its HEALTHCHECK passes: API ready, worker seen, model loaded", flush=True)
        prepared = "mkdir -p /tmp/kernels && cp -R /opt/kernels/. /tmp/kernels/ && python -c 'from mononphm_core.model.compiled import prepare; assert prepare.is_prepared()'"  # noqa: E501
        done = build.inside("worker", prepared, sealed=True, NUMBA_CACHE_DIR="/tmp/kernels")
        assert done.returncode == 0, "the kernels of the image do not count as prepared"
        print("worker           its kernels count as prepared under a read-only root", flush=True)
    finally:
        for process in (worker, api):
            process.terminate()
        for process in (worker, api):
            process.wait(60)
    print(f"{build.done} instructions executed; worker and API ended with {worker.returncode} and {api.returncode}")


if __name__ == "__main__":
    main()
