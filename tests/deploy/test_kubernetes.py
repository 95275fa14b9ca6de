"""The manifests against the published schemas, against each other, and against the service's own names."""

import re

import pytest
import yaml

from service.metrics import HELP
from service.settings import ServiceSettings
from tests.deploy.containers import ROOT
from worker.ledger.store_settings import StoreSettings
from worker.settings import WorkerSettings

FOLDER = ROOT / "deploy" / "kubernetes"
OF_OTHERS = {"ScaledObject": "KEDA's schema is in no package here", "Kustomization": "read by kubectl itself"}


def objects() -> list[dict]:
    """Every object of the folder."""
    return [found for path in sorted(FOLDER.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text())]


def of(kind: str) -> list[dict]:
    return [found for found in objects() if found["kind"] == kind]


def pods() -> list[dict]:
    return [found["spec"]["template"] for found in of("Deployment")]


def test_every_object_is_valid_under_the_published_schema():
    """Strictly: an unknown field is an error, as a misspelt limit is no limit."""
    validator = pytest.importorskip("kubernetes_validate", reason="not installed (extra `deploy`)")
    checked = 0
    for found in objects():
        if found["kind"] not in OF_OTHERS:
            validator.validate(found, "1.34", strict=True)
            checked += 1
    assert checked >= 12
    broken = of("Deployment")[0]
    broken["spec"]["replica"] = 2
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, "1.34", strict=True)


def test_kustomize_takes_every_file_and_none_that_is_not_there():
    """A manifest that nobody applies is a manifest that nobody misses until it is needed."""
    (listed,) = of("Kustomization")
    assert set(listed["resources"]) == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}


def test_no_pod_has_a_right_that_it_does_not_need():
    """The restricted profile of the pod security standards, and bounds for everything."""
    for pod in pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"])


def test_settings_that_are_set_exist():
    """A misspelt variable is ignored in silence."""
    known = {f"MONONPHM_{name.upper()}" for kind in (ServiceSettings, WorkerSettings) for name in kind.model_fields}
    known |= {f"MONONPHM_STORAGE_{name.upper()}" for name in StoreSettings.model_fields} | {"MONONPHM_MODELS_DIR"}
    known |= {f"{name}_FILE" for name in known} | {"PGPASSWORD_FILE"}
    (settings,) = of("ConfigMap")
    named = [e["name"] for pod in pods() for container in pod["spec"]["containers"] for e in container.get("env", [])]
    assert set(settings["data"]) | set(named) <= known


def test_secrets_are_only_referred_to():
    """No object of the folder holds one."""
    assert of("Secret") == []
    (settings,) = of("ConfigMap")
    assert not any(re.search(r"(PASSWORD|KEY|KEY_ID)$", name) for name in settings["data"])


def test_scalers_disruption_budgets_and_services_point_at_what_is_there():
    """By name or by labels."""
    deployments = {
        found["metadata"]["name"]: found["spec"]["template"]["metadata"]["labels"] for found in of("Deployment")
    }
    for found in of("HorizontalPodAutoscaler") + of("ScaledObject"):
        assert found["spec"]["scaleTargetRef"]["name"] in deployments
    for found in of("PodDisruptionBudget"):
        assert found["spec"]["selector"]["matchLabels"] in deployments.values()
    for found in of("Service"):
        assert found["spec"]["selector"] in deployments.values()


def test_workers_scale_on_figures_that_the_service_gives():
    """KEDA's schema is in no package here: bounds, type, question and threshold are checked by hand."""
    (scaled,) = of("ScaledObject")
    spec = scaled["spec"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1" and 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    for trigger in spec["triggers"]:
        assert trigger["type"] == "prometheus" and trigger["metricType"] in ("AverageValue", "Value")
        asked = trigger["metadata"]
        assert {"serverAddress", "query", "threshold"} <= set(asked) and float(asked["threshold"]) > 0
        assert all(isinstance(value, str) for value in asked.values()), "KEDA takes texts"
        names = re.findall(r"mononphm_(\w+)", asked["query"])
        assert names and set(names) <= set(HELP)


def test_a_worker_gets_longer_to_leave_than_to_drain():
    """Kubernetes kills what outlives its grace; a job within it must have been finished or given back."""
    (worker,) = [pod for pod in pods() if pod["metadata"]["labels"]["part"] == "worker"]
    (drain,) = [e["value"] for e in worker["spec"]["containers"][0]["env"] if e["name"] == "MONONPHM_DRAIN_S"]
    assert worker["spec"]["terminationGracePeriodSeconds"] >= float(drain) + 30
    assert worker["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
