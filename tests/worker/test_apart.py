"""API and workers without a common disk: each has a data directory of its own, the bytes meet in an object store."""

import hashlib

import pytest

from tests.support.object_store import Weather
from tests.worker.helpers import LEASE_S, Crew
from worker.ledger import Ledger, State
from worker.ledger.broker import filesystem_broker
from worker.ledger.store_settings import configured_storage

MIB = 1 << 20
LARGE = 6 * MIB
"""Travels in parts."""
PATIENCE_S = 240
"""A busy machine may be slow; only one that hangs is not waited for."""


class Apart(Crew):
    """Workers that see nothing of this data directory; only database and store are common."""

    def __init__(self, ledger, data_dir, store, url):
        super().__init__(ledger, filesystem_broker(data_dir), data_dir)
        self.store, self.url = store, url
        self.failpoints = ""

    def hire(self, *, endpoint=None, failpoints="", **settings):
        """One more worker with a disk of its own, perhaps behind a bad network, perhaps doomed."""
        given = {"url": self.url, "endpoint": endpoint or self.store.endpoint, "access_key_id": "tests"}
        given |= {"secret_access_key": "not-a-secret-at-all", "timeout_s": 20, "part_bytes": 5 * MIB}
        more = {f"storage_{name}": value for name, value in given.items()} | {"sweep_s": 0.5}
        more["data_dir"] = self.data_dir.parent / f"worker-{len(self.workers)}"
        if failpoints:
            more["failpoints"] = failpoints
        return super().hire(**more | settings)

    def results(self, job):
        """Name -> sha256 of the bytes that lie in the store, compared with what the ledger says of them."""
        found = {}
        for item in self.ledger.artifacts(job.id):
            key = f"heads/artifacts/{job.id}@{item.fence}/{item.name}"
            content = self.store.client().get_object(Bucket=self.url.split("/")[2], Key=key)["Body"].read()
            found[item.name] = hashlib.sha256(content).hexdigest()
            assert found[item.name] == item.sha256
        return found

    def lies_only(self, *jobs):
        """Whether store and workers' disks have the inputs and published files of these jobs, and no byte more."""
        expected = [f"heads/inputs/{job.id}/input" for job in jobs] + [
            f"heads/artifacts/{job.id}@{item.fence}/{item.name}"
            for job in jobs
            for item in self.ledger.artifacts(job.id)
        ]
        scratch = [path for path in self.data_dir.parent.glob("worker-*/work/*/*/*") if path.exists()]
        return self.store.keys(self.url) == sorted(expected) and not self.store.unfinished(self.url) and not scratch


@pytest.fixture
def apart(object_store, bucket_url, tmp_path, monkeypatch):
    """The API's side, in this process, and an empty crew."""
    for name, value in object_store.environment(bucket_url).items():
        monkeypatch.setenv(name, value)
    book = Ledger(None, tmp_path / "api", storage=configured_storage(tmp_path / "api"), lease_s=LEASE_S)
    hired = Apart(book, tmp_path / "api", object_store, bucket_url)
    yield hired
    hired.dismiss()
    book.close()


def test_the_artifacts_are_the_same_whatever_the_store(apart, crew):
    """The same order on a shared folder and on a bucket: the same names, and the same bytes in each."""
    script = {"steps": 2, "bytes": LARGE}
    crew.hire()
    apart.hire()
    here, there = crew.submit(**script), apart.submit(**script)
    crew.wait(here, State.SUCCEEDED, within_s=PATIENCE_S)
    apart.wait(there, State.SUCCEEDED, within_s=PATIENCE_S)
    assert apart.results(there) == {item.name: item.sha256 for item in crew.ledger.artifacts(here.id)}
    apart.until(lambda: apart.lies_only(there), within_s=PATIENCE_S)


@pytest.mark.parametrize("place", ["complete.before", "publish.after_commit"])
def test_a_worker_killed_while_it_stores_loses_nothing_and_leaves_nothing(apart, place):
    """kill -9 before the parts become one, or right after the commit: one whole result and, once the janitor has been,
    not a byte beside it, neither in the store nor on the disk that the machine's next worker finds."""
    doomed = apart.hire(failpoints=f"{place}:1")
    job = apart.submit(steps=2, bytes=LARGE)
    apart.until(lambda: doomed.poll() is not None, within_s=PATIENCE_S)
    apart.hire(data_dir=apart.data_dir.parent / "worker-0")
    done = apart.wait(job, State.SUCCEEDED, within_s=PATIENCE_S)
    assert done.attempts == (1 if place == "publish.after_commit" else 2)
    assert set(apart.results(job)) == {"manifest.json", "result.bin"}
    apart.until(lambda: apart.lies_only(job), within_s=PATIENCE_S)


@pytest.mark.slow
def test_two_workers_behind_a_bad_network_lose_no_job(apart):
    """A third of their requests meets a 5xx, a timeout, a cut or a lost answer; for a while all do."""
    weather = Weather(apart.store.endpoint, badness=1 / 3)
    weather.hang_s = 4.0
    for _ in range(2):
        apart.hire(endpoint=weather.endpoint, storage_timeout_s=2)
    jobs = [apart.submit(steps=2, bytes=LARGE if number == 0 else 1000) for number in range(5)]
    apart.wait(jobs[0], State.SUCCEEDED, within_s=PATIENCE_S)
    weather.badness = 1.0
    last = apart.submit(steps=2)
    met = sum(weather.met.values())
    apart.until(lambda: sum(weather.met.values()) > met + 5, within_s=PATIENCE_S)
    weather.badness = 0.2
    for job in [*jobs, last]:
        done = apart.wait(job, State.SUCCEEDED, within_s=PATIENCE_S)
        assert done.attempts == 1
        apart.results(job)
    weather.badness = 0.0
    apart.until(lambda: apart.lies_only(*jobs, last), within_s=PATIENCE_S)
    weather.close()


def test_a_job_that_is_cancelled_while_the_store_is_away_does_not_wait_for_it(apart):
    """The user's wish counts at once, not when patience is over; nor is the worker kept from its next job."""
    weather = Weather(apart.store.endpoint, faults=("error",), badness=1.0)
    apart.hire(endpoint=weather.endpoint)
    job = apart.submit(steps=2)
    apart.until(lambda: sum(weather.met.values()) > 2, within_s=PATIENCE_S)
    assert apart.ledger.request_cancel(job.id).state in (State.CANCELLING, State.CANCELLED)
    apart.wait(job, State.CANCELLED, within_s=PATIENCE_S)
    weather.badness = 0.0
    apart.wait(apart.submit(steps=2), State.SUCCEEDED, within_s=PATIENCE_S)
    weather.close()
