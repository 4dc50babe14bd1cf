#!/usr/bin/env python3
"""Writes dashboards/tollgate.json from the table below: a dashboard is easier to
review as its queries than as 2,000 lines of JSON. No dependency.

    deploy/grafana/build-dashboard.py            write it
    deploy/grafana/build-dashboard.py --check    fail if it is not what would be written
"""
import json
import pathlib
import sys

OUT = pathlib.Path(__file__).parent / "dashboards" / "tollgate.json"
SEL = 'job="$job",instance=~"$instance"'


def q(text):
    return text.replace("@", SEL)


def quantile(share, metric, by, more=""):
    return q(f"histogram_quantile({share}, sum by (le{by}) (rate({metric}_bucket{{@{more}}}[$__rate_interval])))")


def rate(metric, by, more=""):
    return q(f"sum by ({by}) (rate({metric}{{@{more}}}[$__rate_interval]))")


def now(metric, by="instance", more=""):
    return q(f"sum by ({by}) ({metric}{{@{more}}})")


# Row, then panels: title, unit, width of 24, queries with their legends.
ROWS = [
    ("At a glance", [
        ("Instances up", "short", 4, [(q('sum(up{@})'), "up")]),
        ("Phase (1 serving, 2 draining)", "short", 4, [(now("tollgate_phase"), "{{instance}}")]),
        ("Requests per second", "reqps", 4, [(q('sum(rate(tollgate_http_requests_total{@}[$__rate_interval]))'), "all")]),
        ("Share of 5xx", "percentunit", 4, [(q('sum(rate(tollgate_http_requests_total{@,status="5xx"}[$__rate_interval])) / sum(rate(tollgate_http_requests_total{@}[$__rate_interval]))'), "5xx")]),
        ("Proxied p99", "s", 4, [(quantile(0.99, "tollgate_http_request_duration_seconds", "", ',surface="gateway"'), "p99")]),
        ("Version", "short", 4, [(q('count by (version) (tollgate_build_info{@})'), "{{version}}")]),
    ]),
    ("Requests", [
        ("By status", "reqps", 8, [(rate("tollgate_http_requests_total", "surface, status"), "{{surface}} {{status}}")]),
        ("By upstream", "reqps", 8, [(rate("tollgate_http_requests_total", "upstream"), "{{upstream}}")]),
        ("Duration, proxied", "s", 8, [(quantile(s, "tollgate_http_request_duration_seconds", "", ',surface="gateway"'), f"p{s * 100:g}") for s in (0.5, 0.95, 0.99)]),
        ("Duration, our own routes", "s", 8, [(quantile(s, "tollgate_http_request_duration_seconds", "", ',surface="api"'), f"p{s * 100:g}") for s in (0.5, 0.95, 0.99)]),
        ("Bytes", "Bps", 8, [(rate("tollgate_http_request_bytes_total", "surface"), "{{surface}} in"), (rate("tollgate_http_response_bytes_total", "surface"), "{{surface}} out")]),
        ("Under way and open", "short", 8, [(now("tollgate_in_flight"), "requests {{instance}}"), (now("tollgate_connections"), "connections {{instance}}")]),
    ]),
    ("Streams and load", [
        ("Open streams", "short", 8, [(now("tollgate_streams", "kind"), "{{kind}}")]),
        ("Streams that ended", "ops", 8, [(rate("tollgate_streams_ended_total", "kind, reason"), "{{kind}} {{reason}}")]),
        ("Refused for overload", "reqps", 8, [(rate("tollgate_refused_total", "class, reason"), "{{class}} {{reason}}")]),
    ]),
    ("Limits and credentials", [
        ("Limits, by tier", "reqps", 8, [(rate("tollgate_limit_results_total", "tier, decision"), "{{tier}} {{decision}}")]),
        ("Limits, decided by", "reqps", 8, [(q('sum by (source) (rate(tollgate_limit_decisions_total{@}[$__rate_interval])) or vector(0)'), "{{source}}")]),
        ("Credentials answered by", "reqps", 8, [(rate("tollgate_cache_lookups_total", "cache, level"), "{{cache}} {{level}}")]),
        ("Revocation: age of what is known", "s", 8, [(now("tollgate_credential_sync_age_seconds"), "{{instance}}")]),
        ("Revocation: delay p99", "s", 8, [(q('histogram_quantile(0.99, sum by (le, kind) (increase(tollgate_invalidation_delay_seconds_bucket{@}[$__range])))'), "{{kind}}")]),
        ("Passwords", "s", 8, [(quantile(0.99, "tollgate_argon2_duration_seconds", ""), "hashing p99"), (now("tollgate_argon2_queue"), "queue {{instance}}")]),
    ]),
    ("Database and Redis", [
        ("Database calls, p99", "s", 8, [(quantile(0.99, "tollgate_database_call_duration_seconds", ", operation"), "{{operation}}")]),
        ("Database calls", "ops", 8, [(rate("tollgate_database_call_duration_seconds_count", "operation"), "{{operation}}")]),
        ("Database connections", "short", 8, [(now("tollgate_database_connections", "pool, state"), "{{pool}} {{state}}"), (now("tollgate_database_connections_max", "pool"), "{{pool}} most")]),
        ("Database errors", "ops", 8, [(q('sum by (kind) (rate(tollgate_database_errors_total{@}[$__rate_interval])) or vector(0)'), "{{kind}}")]),
        ("Redis calls (none when embedded)", "ops", 8, [(q('sum(rate(tollgate_redis_calls_total{@}[$__rate_interval])) or vector(0)'), "calls"), (q('sum(rate(tollgate_redis_failures_total{@}[$__rate_interval])) or vector(0)'), "failures")]),
        ("Redis done without", "short", 8, [(q('sum(tollgate_redis_degraded{@}) or vector(0)'), "instances")]),
    ]),
    ("Upstreams", [
        ("Targets available", "short", 8, [(now("tollgate_upstream_available", "upstream, target"), "{{upstream}} {{target}}")]),
        ("Breakers (0 closed, 1 half-open, 2 open)", "short", 8, [(q('max by (upstream, target) (tollgate_upstream_breaker_state{@})'), "{{upstream}} {{target}}")]),
        ("Failures", "ops", 8, [(rate("tollgate_upstream_failures_total", "upstream, reason"), "{{upstream}} {{reason}}")]),
        ("Connections and waiting", "short", 8, [(now("tollgate_upstream_connections", "upstream"), "{{upstream}} connections"), (now("tollgate_upstream_pending", "upstream"), "{{upstream}} waiting")]),
        ("Chat answers", "ops", 8, [(rate("tollgate_chat_answers_total", "end"), "{{end}}")]),
        ("Chat answers under way", "short", 8, [(now("tollgate_chat_answers_in_flight"), "{{instance}}")]),
    ]),
    ("Usage, ledger, logs", [
        ("Journal records", "ops", 8, [(rate("tollgate_journal_records_total", "instance"), "{{instance}}")]),
        ("Journal lag", "s", 8, [(now("tollgate_journal_lag_seconds"), "{{instance}}")]),
        ("Waiting for the database", "short", 8, [(now("tollgate_usage_pending"), "records {{instance}}"), (now("tollgate_journal_bytes"), "bytes {{instance}}")]),
        ("Usage lost (must be 0)", "short", 8, [(q('sum(tollgate_usage_dropped_total{@}) or vector(0)'), "dropped"), (q('sum(tollgate_journal_damaged_bytes_total{@}) or vector(0)'), "damaged bytes")]),
        ("Ledger differences (must be 0)", "short", 8, [(q('sum(tollgate_ledger_differences{@}) or vector(0)'), "differences")]),
        ("Log lines dropped", "short", 8, [(q('sum by (output) (tollgate_log_lines_dropped_total{@}) or vector(0)'), "{{output}}")]),
    ]),
    ("Process and TLS", [
        ("CPU", "short", 8, [(rate("process_cpu_seconds_total", "instance"), "{{instance}} cores")]),
        ("Memory", "bytes", 8, [(now("process_resident_memory_bytes"), "{{instance}}")]),
        ("File descriptors", "short", 8, [(now("process_open_fds"), "{{instance}}")]),
        ("TLS handshakes", "ops", 12, [(rate("tollgate_tls_handshakes_total", "result"), "{{result}}")]),
        ("Certificate ends in", "s", 12, [(q('min by (instance) (tollgate_tls_certificate_expiry_timestamp_seconds{@} - time())'), "{{instance}}")]),
    ]),
]


def dashboard():
    panels, y, number = [], 0, 0
    for row, members in ROWS:
        number += 1
        panels.append({"id": number, "type": "row", "title": row, "collapsed": False,
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y, x, height = y + 1, 0, 4 if row == "At a glance" else 8
        for title, unit, width, queries in members:
            if x + width > 24:
                x, y = 0, y + height
            number += 1
            panels.append({
                "id": number, "title": title, "type": "stat" if height == 4 else "timeseries",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"x": x, "y": y, "w": width, "h": height},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "options": {},
                "targets": [{"refId": chr(65 + at), "expr": expr, "legendFormat": legend,
                             "datasource": {"type": "prometheus", "uid": "${datasource}"}}
                            for at, (expr, legend) in enumerate(queries)],
            })
            x += width
        y += height

    def variable(name, query, multi):
        return {"name": name, "type": "query", "query": {"query": query, "refId": name},
                "datasource": {"type": "prometheus", "uid": "${datasource}"}, "refresh": 2,
                "multi": multi, "includeAll": multi, "allValue": ".*" if multi else None,
                "current": {"text": "All", "value": "$__all"} if multi else {"text": "tollgate", "value": "tollgate"}}
    return {
        "uid": "tollgate", "title": "Tollgate", "tags": ["tollgate"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "label_values(tollgate_connections, job)", False),
            variable("instance", 'label_values(tollgate_connections{job="$job"}, instance)', True),
        ]},
        "panels": panels,
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv:
        if OUT.read_text() != text:
            sys.exit(f"{OUT} is stale: run {sys.argv[0]}")
        return
    OUT.write_text(text)


if __name__ == "__main__":
    main()
