"""Alerts and the dashboard ask for figures that exist, and every alert fires when it should and only then."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from service.metrics import HELP
from tests.deploy.containers import ROOT

MONITORING = ROOT / "deploy" / "monitoring"


def alerts() -> list[dict]:
    return yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]


def expressions() -> list[str]:
    """Every question that is put to Prometheus."""
    board = json.loads((MONITORING / "grafana" / "dashboards" / "mononphm.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return asked + [rule["expr"] for rule in alerts()]


@pytest.mark.parametrize("expression", expressions())
def test_every_question_is_about_a_figure_that_the_service_gives(expression):
    """A misspelt metric is a panel that stays empty and an alert that never fires."""
    for name in re.findall(r"mononphm_(\w+)", expression):
        family = name if name in HELP else name.removesuffix("_bucket")
        assert family in HELP, name


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    """Somebody reads it at night."""
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
    ids=["config", "rules", "histories"],
)
def test_prometheus_own_tool_agrees(arguments):
    """The last one runs the rules over made-up histories: a good one alarms nobody, a bad one fires all eleven."""
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_history_in_which_it_fires():
    """An alert that was never seen firing is a hope."""
    bad = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"][1]["promql_expr_test"][0]["exp_samples"]
    fired = {re.search(r'alertname="(\w+)"', sample["labels"])[1] for sample in bad}
    assert fired == {rule["alert"] for rule in alerts()}
