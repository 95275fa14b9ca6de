"""Whose turn it is: fair between owners, by age and priority within one, and nobody waits for ever."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from worker.ledger.scheduling import (
    HEAD_START,
    OTHERS_PATIENCE,
    WARM_DEVICE_S,
    WARM_HEAD_START,
    Account,
    Head,
    Line,
    clock_s,
    next_job,
    place,
    queue_for,
    within_reach,
)

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def head(job_id: str, owner: str = "", model: str = "", after_s: float = 0.0) -> Head:
    return Head(job_id, owner, model, NOON + timedelta(seconds=after_s))


class Shop:
    """One worker that is never idle, and accounts as the ledger keeps them."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def serve(self, heads: list[Head], cost_s: float | dict[str, float], warm: frozenset[str] = frozenset()) -> Head:
        chosen = next_job(heads, self.accounts, warm)
        assert chosen is not None
        expected_s = 30.0
        clock = clock_s(self.accounts.values())
        self.accounts[chosen.owner] = self.accounts.get(chosen.owner, Account()).charged(clock, expected_s)
        actual_s = cost_s[chosen.owner] if isinstance(cost_s, dict) else cost_s
        self.accounts[chosen.owner] = self.accounts[chosen.owner].settled(expected_s, actual_s)
        return chosen


def test_nobody_waits_when_nobody_waits():
    assert next_job([], {}) is None


def test_the_order_in_which_heads_are_listed_does_not_matter():
    """Two databases list rows differently; the answer must be the same."""
    heads = [head("b", "x"), head("a", "y"), head("c", "x", "m", -30), head("d", "z", after_s=5)]
    accounts = {"x": Account(10, 40), "y": Account(20, 50), "z": Account(0, 45)}
    answers = {next_job(order, accounts, frozenset({"m"})).job_id for order in permutations(heads)}
    assert len(answers) == 1


def test_among_equals_the_earlier_goes_first():
    assert next_job([head("late", "a", after_s=1), head("early", "b")], {}).job_id == "early"


def test_device_time_is_shared_equally_whatever_jobs_cost():
    """One owner's jobs take ten times as long: it gets a tenth as many, and both the same seconds within 2 %."""
    shop, seconds, cost = Shop(), Counter(), {"long": 200.0, "short": 20.0}
    for number in range(2000):
        chosen = shop.serve([head(f"l{number}", "long"), head(f"s{number}", "short")], cost)
        seconds[chosen.owner] += cost[chosen.owner]
    assert seconds["long"] == pytest.approx(seconds["short"], rel=0.02)


def test_an_owner_who_floods_does_not_keep_another_waiting():
    """A thousand jobs of one owner: the first job of another is served next but one."""
    shop = Shop()
    for number in range(500):
        shop.serve([head(f"f{number:04}", "flood", after_s=number)], 30.0)
    served = [
        shop.serve([head(f"g{n:04}", "flood", after_s=600 + n), head("guest", "guest", after_s=9_999)], 30.0).job_id
        for n in range(2)
    ]
    assert "guest" in served


def test_who_was_away_has_saved_nothing():
    """Hours of silence are no credit: an owner who comes back shares from now on, and does not take over."""
    shop = Shop()
    shop.serve([head("first", "away")], 30.0)
    for number in range(1000):
        shop.serve([head(f"s{number:04}", "steady")], 30.0)
    owners = [shop.serve([head("x", "away"), head("y", "steady")], 30.0).owner for _ in range(100)]
    assert abs(owners.count("away") - 50) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_no_owner_waits_longer_than_a_round_of_the_others(seed):
    """The bound of start-time fair queueing: while an owner waits, nobody else gets more than a few jobs' worth.

    Random costs up to 100 s (30 expected), ten owners, the worker's warm model changing at random.
    """
    chance, shop, dearest = random.Random(seed), Shop(), 100.0
    since: dict[str, Counter[str]] = {f"o{n}": Counter() for n in range(10)}
    for number in range(3000):
        heads = [head(f"{owner}-{number}", owner, chance.choice("ab")) for owner in since]
        cost_s = chance.uniform(1, dearest)
        chosen = shop.serve(heads, cost_s, frozenset(chance.choice("ab")))
        for owner, others in since.items():
            if owner == chosen.owner:
                since[owner] = Counter()
            else:
                others[chosen.owner] += cost_s
            assert max(since[owner].values(), default=0.0) <= 2 * dearest + 2 * WARM_DEVICE_S + dearest


def test_a_job_is_overtaken_only_by_jobs_that_came_a_head_start_later():
    """No starvation within one owner: against a stream of high ones on a warm model, a low one goes in time."""
    low = Head("low", "", "cold", NOON - HEAD_START["low"])
    largest = HEAD_START["high"] - HEAD_START["low"] + WARM_HEAD_START
    for minute in range(60):
        came = timedelta(minutes=minute)
        young = Head("high", "", "warm", NOON + came - HEAD_START["high"])
        chosen = next_job([low, young], {}, frozenset({"warm"}))
        assert (chosen.job_id == "high") == (came < largest) or came == largest


def test_a_worker_prefers_the_model_it_has_loaded_but_not_for_long():
    warm = frozenset({"m"})
    near, far = WARM_HEAD_START.total_seconds() - 1, WARM_HEAD_START.total_seconds() + 1
    assert next_job([head("cold"), head("warm", "", "m", near)], {}, warm).job_id == "warm"
    assert next_job([head("cold"), head("warm", "", "m", far)], {}, warm).job_id == "cold"
    accounts = {"rich": Account(0, WARM_DEVICE_S - 1), "richer": Account(0, WARM_DEVICE_S + 1), "poor": Account(0, 0)}
    assert next_job([head("cold", "poor"), head("warm", "rich", "m")], accounts, warm).job_id == "warm"
    assert next_job([head("cold", "poor"), head("warm", "richer", "m")], accounts, warm).job_id == "cold"


def test_a_worker_does_first_what_it_is_there_for_and_nobody_waits_for_ever():
    """A GPU leaves short work to processors while there is long work, but helps when it is idle or somebody waits."""
    gpu, young = [head("long")], head("short", after_s=1)
    old = head("old", after_s=-OTHERS_PATIENCE.total_seconds())
    assert within_reach(gpu, [young], NOON) == gpu
    assert within_reach([], [young], NOON) == [young]
    assert within_reach(gpu, [young, old], NOON) == [*gpu, old]


def test_only_long_jobs_wait_for_a_gpu_and_only_where_somebody_says_so():
    assert queue_for(1e9, None) == queue_for(29.0, 30.0) == "mononphm"
    assert queue_for(30.0, 30.0) == "mononphm-gpu"


@pytest.mark.parametrize("seed", range(20))
def test_the_place_that_is_told_is_the_place_that_comes(seed):
    """`place` is a closed form of asking `next_job` again and again."""
    chance = random.Random(seed)
    lines = {
        f"o{n}": sorted(NOON + timedelta(seconds=chance.random() * 99) for _ in range(chance.randint(1, 9)))
        for n in "abc"
    }
    cost = {owner: float(chance.choice([15, 40, 92])) for owner in lines}
    accounts = {owner: Account(0.0, float(chance.randint(0, 200))) for owner in lines}
    kept, order, shares = {o: list(r) for o, r in lines.items()}, [], dict(accounts)
    while any(kept.values()):
        heads = [Head(f"{o}{len(r)}", o, "", r[0]) for o, r in kept.items() if r]
        owner = next_job(heads, shares).owner
        order.append((owner, kept[owner].pop(0)))
        shares[owner] = shares[owner].charged(clock_s(shares.values()), cost[owner])
    summed = [Line(o, len(r), cost[o], r[0]) for o, r in lines.items()]
    for owner, ranks in lines.items():
        for number, rank_at in enumerate(ranks, 1):
            told = place(Line(owner, number, cost[owner], rank_at), summed, accounts)
            assert abs(told - 1 - order.index((owner, rank_at))) <= 1  # two equal tags may change places
