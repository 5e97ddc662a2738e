"""The files in deploy/monitoring, read: alerts, dashboard and every PromQL expression in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
GRAFANA = FOLDER / "grafana"
THRESHOLD = re.compile(r"\s(==|<|>)\s([\d.]+)$")

PROMETHEUS: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "resight.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


def measured(alert: dict[str, Any]) -> str:
    """An alert's expression without its threshold."""
    expression: str = alert["expr"]
    assert THRESHOLD.search(expression), f"{alert['alert']} does not end with a threshold"
    return THRESHOLD.sub("", expression)


def of_panels() -> Iterator[tuple[str, str]]:
    """Title and expression, for every query of the dashboard's panels."""
    for panel in PANELS:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}, query {target['refId']}", target["expr"]


def of_alerts() -> Iterator[tuple[str, str]]:
    """Name and expression without its threshold, for every alert."""
    for alert in ALERTS:
        yield f"alert {alert['alert']}", measured(alert)


def of_annotations() -> Iterator[tuple[str, str]]:
    """Name and expression, for every mark that the dashboard draws."""
    for annotation in DASHBOARD["annotations"]["list"]:
        yield f"annotation {annotation['name']!r}", annotation["expr"]


def metric_names(expression: str) -> set[str]:
    """The service's metrics in an expression."""
    return set(re.findall(r"\b(?:resight|process)_\w+", re.sub(r'"[^"]*"', "", expression)))
