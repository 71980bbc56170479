"""The result for CI servers: JUnit XML, and a summary in Markdown."""

import re
from xml.etree import ElementTree as ET

from plantml.metrics import Interval
from plantml.reporting import documents
from plantml.validate.gates import Gate, describe
from plantml.validate.results import ValidationResult

_SLICES = 10


def junit(result: ValidationResult) -> bytes:
    """One test case per gate as JUnit XML; without gates, one that passes."""
    failed = [gate for gate in result.gates if not gate.passed]
    count = {"tests": str(max(1, len(result.gates))), "failures": str(len(failed)), "errors": "0"}
    suites = ET.Element("testsuites", {"name": "plantml validate", **count})
    suite = ET.SubElement(suites, "testsuite", {"name": f"{result.dataset} {result.split}", **count})
    for gate in result.gates:
        name = f"{gate.name} {gate.kind} {gate.bound:g}"
        case = ET.SubElement(suite, "testcase", classname=f"plantml.{gate.kind}", name=name)
        if gate.passed:
            ET.SubElement(case, "system-out").text = str(gate)
        else:
            ET.SubElement(case, "failure", message=_printable(str(gate)), type="gate").text = str(gate)
    if not result.gates:
        ET.SubElement(suite, "testcase", classname="plantml", name="validated")
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text


def markdown(result: ValidationResult) -> bytes:
    """The verdict, the gates, the scores and the worst slices."""
    lines = [f"# Validation of {documents.cell(result.dataset)}", ""]
    state = "" if not result.gates else " **All gates passed.**" if result.passed else " **A gate failed.**"
    lines += [f"{result.photos} photos of split `{result.split}`, model `{result.model[:12]}`.{state}", ""]
    if result.comparison:
        lines += [result.comparison.verdict, ""]
    if result.gates:
        rows = [["passed" if gate.passed else "**FAILED**", *_gate_cells(gate)] for gate in result.gates]
        lines += documents.table(("gate", "score", "value", "95 % interval", "required", ""), rows)
    rows = [[name, f"{value:.4f}", _interval(result.intervals.get(name))] for name, value in result.scores.items()]
    lines += documents.table(("score", "value", "95 % interval"), rows)
    if result.comparison:
        pairs = [
            [each.name, f"{each.other:.4f}", f"{each.value:.4f}", _interval(each.interval), each.verdict]
            for each in result.comparison.differences
        ]
        lines += documents.table(
            ("comparison", "other model", "this model", "difference, 95 % interval", "verdict"), pairs
        )
    worst = [
        [f"{each.by}: {each.value}", each.target, f"{each.number:.4f}", _interval(each.interval), str(each.photos)]
        for each in result.slices[:_SLICES]
    ]
    if worst:
        lines += documents.table(("worst slices", "target", "score", "95 % interval", "photos"), worst)
    if result.contributions:
        drops = [
            [
                each.covariate,
                f"{each.target}.{each.score}",
                f"{each.after:.4f}",
                f"{each.drop:.4f}",
                _interval(each.interval),
            ]
            for each in result.contributions.drops
        ]
        lines += documents.table(("without", "score", "value", "drop", "95 % interval"), drops)
    if result.leaks and result.leaks.leaked:
        clean = ", ".join(f"{name} {value:.4f}" for name, value in list(result.leaks.clean.items())[:2]) or "none left"
        lines += [f"{result.leaks.leaked} photos have a near-duplicate in training. Scores without them: {clean}.", ""]
    return "\n".join(lines).encode()


def _gate_cells(gate: Gate) -> list[str]:
    name, bound = describe(gate.as_json())
    note = "" if gate.resolvable else f"not resolvable with {gate.photos} photos"
    return [name, f"{gate.value:.4f}", _interval(gate.interval), bound, note]


def _interval(interval: Interval | None) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}" if interval else ""


def _printable(text: str) -> str:
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", text)
