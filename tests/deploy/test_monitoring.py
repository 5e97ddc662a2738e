"""The monitoring's files are held to what the service measures, to each other and to the pages that they name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy import monitoring
from tests.deploy.headings import anchors
from tests.deploy.monitoring import ALERTS, DASHBOARD, FOLDER, GRAFANA, PANELS, PROMETHEUS, ROOT, metric_names
from tests.drawn_crops import crop, uploads

OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def exposed(client: httpx.Client) -> list[Metric]:
    """What the service says that it measures."""
    return list(text_string_to_metric_families(client.get("/metrics").text))


def test_every_metric_that_is_asked_for_exists(client: httpx.Client) -> None:
    client.post("/query", files=uploads(crop(1)))
    there = {family.name + suffix for family in exposed(client) for suffix in SUFFIXES[family.type]}
    asked = dict(chain(monitoring.of_panels(), monitoring.of_alerts(), monitoring.of_annotations()))
    missing = {where: names for where, text in asked.items() if (names := metric_names(text) - there)}
    assert not missing
    assert sum(bool(metric_names(text)) for text in asked.values()) > 40


def test_every_metric_is_in_the_table_and_on_the_dashboard(client: httpx.Client) -> None:
    families = {family.name: family.type for family in exposed(client) if family.name.startswith("resight_")}
    table = re.findall(r"^\| `(resight_\w+)` \| (\w+) \|", OPERATIONS, re.MULTILINE)
    assert dict(table) == families
    assert len(table) == len(families)
    shown = set().union(*(metric_names(text) for _, text in monitoring.of_panels()))
    assert {name for name in families if not any(one.startswith(name) for one in shown)} == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_and_where_it_stands_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert "{{ $labels.instance }}" in alert["annotations"]["summary"]
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert page == "docs/operations.md"
    assert anchor in anchors(OPERATIONS)
    assert f"`{alert['alert']}`" in section(anchor)
    assert monitoring.measured(alert)


def section(anchor: str) -> str:
    """The text under a heading, up to the next one."""
    parts = re.split(r"^#+ (?=.)", OPERATIONS, flags=re.MULTILINE)
    (found,) = (part for part in parts if anchors(f"# {part}") == {anchor})
    return found


def test_alerts_are_called_differently() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)


def test_prometheus_scrapes_the_service_of_the_compose_files() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["job_name"] == "resight"
    assert (
        "static_configs" not in job
    )  # one that does not run is no target, in the profile `milvus` not even a missing one
    assert job["dns_sd_configs"] == [{"names": ["resight", "replica"], "type": "A", "port": 8000}]
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    public = yaml.safe_load((FOLDER / "prometheus.public.yml").read_text(encoding="utf-8"))
    (public_job,) = public.pop("scrape_configs")
    assert public_job.pop("authorization") == {"credentials_file": "/run/secrets/metrics_key"}
    assert {**public, "scrape_configs": [public_job]} == PROMETHEUS


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    variable, _ = DASHBOARD["templating"]["list"]
    assert (source["type"], source["uid"]) == ("prometheus", variable["current"]["value"])
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = provisioned("dashboards/resight.yml")["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def provisioned(name: str) -> dict[str, Any]:
    """A file that Grafana reads when it starts."""
    found: dict[str, Any] = yaml.safe_load((GRAFANA / "provisioning" / name).read_text(encoding="utf-8"))
    assert found["apiVersion"] == 1
    return found


def test_the_dashboard_asks_the_chosen_source_about_the_chosen_instances() -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    for panel in charts():
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            selectors = Counter(re.findall(r"(\w+)\{", target["expr"]))
            assert set(selectors) == metric_names(target["expr"])
            assert target["expr"].count('instance=~"$instance"') == selectors.total()


def charts() -> Iterator[dict[str, Any]]:
    """The panels that show something; the others head a row."""
    return (panel for panel in PANELS if panel["type"] != "row")


def test_every_panel_has_a_unit_and_queries_of_its_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in charts():
        assert panel["type"] in ("timeseries", "stat", "table", "bargauge", "heatmap")
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references == ["A", "B", "C"][: len(references)]


def test_panels_lie_side_by_side() -> None:
    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return {(at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])}

    for one, other in combinations(PANELS, 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert max(x for panel in PANELS for x, _ in cells(panel)) < 24  # columns that Grafana has
