//! Owns the dashboard that Grafana loads: what is on it, and how that becomes Grafana's JSON
//! (<https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>).

use serde_json::{Value, json};

use super::dashboard_panels::{COLUMNS, Panel, ROWS, Show, Unit};

/// The form of the JSON: what Grafana 10.4 writes, and later ones read.
const SCHEMA_VERSION: u32 = 39;

/// The dashboard.
pub fn json() -> Value {
    let mut panels = Vec::new();
    let mut y = 0;
    for row in ROWS {
        let id = panels.len() + 1;
        panels.push(json!({
            "id": id,
            "type": "row",
            "title": row.title,
            "collapsed": false,
            "panels": [],
            "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
        }));
        y += 1;
        let (mut x, mut tallest) = (0, 0);
        for panel in row.panels {
            if x + panel.width > COLUMNS {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            let id = panels.len() + 1;
            panels.push(drawn(panel, id, (x, y)));
            x += panel.width;
            tallest = tallest.max(panel.height);
        }
        y += tallest;
    }
    json!({
        "uid": "tollgate",
        "title": "Tollgate",
        "description": "What agents ask, what it costs, how credentials and the proxy itself are doing. Printed by `tollgate gen dashboards`.",
        "tags": ["tollgate"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": true,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-6h", "to": "now" },
        "timepicker": {},
        "timezone": "browser",
        "links": [],
        "annotations": { "list": [] },
        "templating": { "list": variables() },
        "panels": panels,
    })
}

/// Every query of the dashboard, by the panel it belongs to.
pub fn queries() -> impl Iterator<Item = (&'static str, &'static str)> {
    let panels = ROWS.iter().flat_map(|row| row.panels);
    panels.flat_map(|panel| panel.queries.iter().map(|query| (panel.title, query.expr)))
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables() -> Vec<Value> {
    let mut variables = vec![json!({
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "multi": false,
        "includeAll": false,
        "refresh": 1,
        "regex": "",
        "options": [],
        "current": { "text": "default", "value": "default" },
    })];
    for (name, label, series) in [
        ("job", "Job", "tollgate_build_info"),
        ("agent", "Agent", "tollgate_requests_total{job=~\"$job\"}"),
        ("host", "Host", "tollgate_requests_total{job=~\"$job\"}"),
    ] {
        let query = format!("label_values({series}, {name})");
        variables.push(json!({
            "name": name,
            "label": label,
            "type": "query",
            "datasource": source(),
            "query": { "query": query, "refId": "Variables" },
            "hide": 0,
            "multi": true,
            "includeAll": true,
            // The default list of names leaves out what has none.
            "allValue": ".*",
            "refresh": 2,
            "sort": 1,
            "regex": "",
            "options": [],
            "current": { "text": ["All"], "value": ["$__all"] },
        }));
    }
    variables
}

fn drawn(panel: &Panel, id: usize, (x, y): (u32, u32)) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|(query, letter)| {
            json!({
                "refId": letter.to_string(),
                "datasource": source(),
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": panel.show != Show::Lines && panel.show != Show::Stacked,
                "range": panel.show == Show::Lines || panel.show == Show::Stacked,
                "format": if panel.show == Show::Table { "table" } else { "time_series" },
            })
        })
        .collect();
    json!({
        "id": id,
        "type": panel.show.plugin(),
        "title": panel.title,
        "description": panel.about,
        "datasource": source(),
        "gridPos": { "x": x, "y": y, "w": panel.width, "h": panel.height },
        "targets": targets,
        "fieldConfig": { "defaults": defaults(panel), "overrides": [] },
        "options": options(panel.show),
        "transformations": transformations(panel.show),
    })
}

fn defaults(panel: &Panel) -> Value {
    let steps: Vec<Value> = panel
        .steps
        .iter()
        .map(|(from, color)| json!({ "value": from, "color": color }))
        .collect();
    let mut defaults = json!({
        "unit": panel.unit.grafana(),
        "color": { "mode": if panel.steps.len() > 1 { "thresholds" } else { "palette-classic" } },
        "thresholds": { "mode": "absolute", "steps": steps },
        "mappings": [],
    });
    if panel.unit == Unit::Share {
        defaults["min"] = json!(0);
    }
    if matches!(panel.show, Show::Lines | Show::Stacked) {
        defaults["color"] = json!({ "mode": "palette-classic" });
        defaults["custom"] = json!({
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": if panel.show == Show::Stacked { 30 } else { 5 },
            "showPoints": "never",
            "stacking": {
                "mode": if panel.show == Show::Stacked { "normal" } else { "none" },
                "group": "A",
            },
        });
    }
    defaults
}

fn options(show: Show) -> Value {
    let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
    match show {
        Show::Number => json!({
            "reduceOptions": last,
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": "auto",
            "orientation": "auto",
            "wideLayout": true,
            "showPercentChange": false,
            "percentChangeColorMode": "standard",
        }),
        Show::Bars => json!({
            "reduceOptions": last,
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "namePlacement": "auto",
            "showUnfilled": true,
            "sizing": "auto",
            "minVizWidth": 8,
            "minVizHeight": 16,
            "maxVizHeight": 300,
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": [] },
        }),
        Show::Lines | Show::Stacked => json!({
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Show::Table => json!({
            "showHeader": true,
            "cellHeight": "sm",
            "frameIndex": 0,
        }),
    }
}

/// A table shows labels and values, and no columns that are the same in every row.
fn transformations(show: Show) -> Value {
    match show {
        Show::Table => json!([{
            "id": "organize",
            "options": { "excludeByName": { "Time": true, "job": true, "__name__": true } },
        }]),
        _ => json!([]),
    }
}
