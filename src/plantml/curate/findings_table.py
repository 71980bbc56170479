"""Findings for programs: JSON, and a Parquet table with one row per finding and photo."""

import io
from typing import Any

import polars as pl

from plantml.curate.findings import CODES, Finding, Report

_SCHEMA = {
    "finding": pl.Int64,
    "code": pl.String,
    "severity": pl.String,
    "source": pl.String,
    "name": pl.String,
    "image_id": pl.String,
    "evidence": pl.String,
    "remedy": pl.String,
    "score": pl.Float64,
}


def as_json(report: Report, finding: Finding) -> dict[str, Any]:
    """Return a finding as an object of the check's JSON document."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "images": [report.name(row) for row in finding.rows],
        "evidence": finding.evidence,
        "remedy": CODES[finding.code].remedy,
        "score": finding.score,
        "facts": dict(finding.facts),
    }


def to_parquet(report: Report) -> bytes:
    """Return all findings as Parquet. A finding without photos has one row without a name."""
    photos = report.version.rows.select("source", "name", "image_id").rows()
    records = []
    for number, finding in enumerate(report.findings):
        details = (finding.evidence, CODES[finding.code].remedy, finding.score)
        for row in finding.rows or (None,):
            photo = (None, None, None) if row is None else photos[row]
            records.append((number, finding.code, finding.severity, *photo, *details))
    buffer = io.BytesIO()
    pl.DataFrame(records, schema=_SCHEMA, orient="row").write_parquet(buffer)
    return buffer.getvalue()
