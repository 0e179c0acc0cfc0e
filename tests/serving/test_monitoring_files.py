"""Alert rules and dashboard, read as Prometheus and Grafana would; `test_app` has the metrics."""

import json
import re

import pytest
import yaml

from common.training_reference import STATISTICS
from tests.support import promql
from tests.support.paths import ROOT

FOLDER = ROOT / "serving" / "monitoring"
RATE_INTERVAL = "$__rate_interval"  # a variable of Grafana's own


def rules() -> list[dict]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return group["rules"]


def dashboard() -> dict:
    return json.loads((FOLDER / "dashboard.json").read_text())


def expressions() -> list[str]:
    """All of both, as they come to Prometheus."""
    targets = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    targets = [
        expression.replace(RATE_INTERVAL, "1m").replace("$statistic", STATISTICS[0])
        for expression in targets
    ]
    return [rule["expr"] for rule in rules()] + targets


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_can_be_parsed_and_asks_for_something(expression):
    assert promql.selectors(expression)


def test_rules_are_as_prometheus_takes_them():
    """And their texts name only labels that the result has."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        kept = re.findall(r"sum by \(([\w, ]+)\)|max by \((\w+)\)", rule["expr"])
        if kept:
            assert named <= set(re.findall(r"\w+", " ".join("".join(each) for each in kept)))


def test_prometheus_reads_the_rules_and_the_app():
    values = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert values["rule_files"] == ["alerts.yml"]
    (scrape,) = values["scrape_configs"]
    jobs = {s.labels.get("job") for e in expressions() for s in promql.selectors(e)} - {None}
    assert jobs == {scrape["job_name"]}


def test_the_dashboard_is_whole():
    values = dashboard()
    panels = values["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in panels]
    cells = [
        (column, row)
        for x, y, width, height in places
        for column in range(x, x + width)
        for row in range(y, y + height)
    ]
    assert len(set(cells)) == len(cells) and max(column for column, _ in cells) < 24
    variables = {each["name"]: each for each in values["templating"]["list"]}
    text = json.dumps(panels)
    used = set(re.findall(r"\$\{?(\w+)", text.replace(RATE_INTERVAL, "")))
    assert used == variables.keys()
    assert variables["statistic"]["query"].split(",") == list(STATISTICS)
