"""docker-compose.objects.yml: the API and the worker in the store of the profile `objects`."""

import json
from importlib.resources import files

import pytest

from tests.deploy.containers import compose, interpolated, laid_over
from worker.ledger.store_settings import StoreSettings

NAME = "docker-compose.objects.yml"


@pytest.fixture(scope="module")
def merged():
    """As the engine sees it."""
    return laid_over(compose("docker-compose.yml"), compose(NAME))


def test_it_is_valid_under_the_compose_specification(merged):
    validator = pytest.importorskip("jsonschema")
    pytest.importorskip("check_jsonschema")
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    validator.validate(interpolated(merged), schema)


def test_both_name_the_same_store_by_settings_that_there_are(merged):
    """A misspelt setting would be ignored, and the bytes would silently go to the folder."""
    given = []
    for service in ("api", "worker"):
        environment = merged["services"][service]["environment"]
        found = {name: value for name, value in environment.items() if name.startswith("MONONPHM_STORAGE_")}
        assert {name.removeprefix("MONONPHM_STORAGE_").lower() for name in found} <= set(StoreSettings.model_fields)
        assert "MONONPHM_DATABASE_URL" in environment, "laid over, not put in its place"
        given.append(found)
    assert given[0] == given[1]
    port = merged["services"]["objects"]["command"]
    assert any(
        given[0]["MONONPHM_STORAGE_ENDPOINT"] == f"http://objects:{word.split('=')[1]}"
        for word in port
        if "s3.port" in word
    )
    secrets = merged["services"]["secrets"]["command"][0]
    assert "s3_key" in secrets and "s3_secret" in secrets
