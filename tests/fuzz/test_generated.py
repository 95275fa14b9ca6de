"""The short form of `make fuzz`."""

import importlib.util

import pytest

from tests.fuzz.run import generated_requests


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_generated_requests_find_no_answer_that_the_document_does_not_promise(tmp_path):
    """The document is a promise to programs: requests that nobody thought of are held against it."""
    outcome = generated_requests(tmp_path, seconds=25, seed=1, cases_per_operation=2, phases="examples,fuzzing")
    assert outcome.code == 0, outcome.text[-6000:]
    assert outcome.cases > 5, outcome.text[-2000:]  # some hundred on an idle machine
