"""The result for the pages of a CI server: JUnit XML, and a summary in Markdown."""

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from plantml.metrics import Interval
from plantml.reporting import documents
from plantml.validate.gates import Gate, told

if TYPE_CHECKING:
    from plantml.validate.validate import Validated

_SLICES = 10


def junit(found: "Validated") -> bytes:
    """A test case for every gate, in the XML that CI servers read; without gates, one that passes."""
    failed = [gate for gate in found.gates if not gate.passed]
    count = {"tests": str(max(1, len(found.gates))), "failures": str(len(failed)), "errors": "0"}
    suites = ET.Element("testsuites", {"name": "plantml validate", **count})
    suite = ET.SubElement(suites, "testsuite", {"name": f"{found.dataset} {found.split}", **count})
    for gate in found.gates:
        said = f"{gate.name} {gate.kind} {gate.bound:g}"
        case = ET.SubElement(suite, "testcase", classname=f"plantml.{gate.kind}", name=said)
        if gate.passed:
            ET.SubElement(case, "system-out").text = str(gate)
        else:
            ET.SubElement(case, "failure", message=_printable(str(gate)), type="gate").text = str(gate)
    if not found.gates:
        ET.SubElement(suite, "testcase", classname="plantml", name="validated")
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text


def markdown(found: "Validated") -> bytes:
    """The verdict, the gates, the scores and the worst slices."""
    lines = [f"# Validation of {documents.cell(found.dataset)}", ""]
    state = "" if not found.gates else " **All gates passed.**" if found.passed else " **A gate failed.**"
    lines += [f"{found.photos} photos of split `{found.split}`, model `{found.model[:12]}`.{state}", ""]
    if found.comparison:
        lines += [found.comparison.verdict, ""]
    if found.gates:
        rows = [["passed" if gate.passed else "**FAILED**", *_gate_cells(gate)] for gate in found.gates]
        lines += documents.table(("gate", "score", "number", "95 % interval", "wanted", ""), rows)
    rows = [[name, f"{value:.4f}", _interval(found.intervals.get(name))] for name, value in found.scores.items()]
    lines += documents.table(("score", "number", "95 % interval"), rows)
    if found.comparison:
        pairs = [
            [each.name, f"{each.other:.4f}", f"{each.value:.4f}", _interval(each.interval), each.verdict]
            for each in found.comparison.differences
        ]
        lines += documents.table(("against the other", "other", "this", "difference, 95 %", "this is"), pairs)
    worst = [
        [f"{each.by}: {each.value}", each.target, f"{each.number:.4f}", _interval(each.interval), str(each.photos)]
        for each in found.slices[:_SLICES]
    ]
    if worst:
        lines += documents.table(("worst slices", "target", "score", "95 % interval", "photos"), worst)
    if found.leaks and found.leaks.leaked:
        clean = ", ".join(f"{name} {value:.4f}" for name, value in list(found.leaks.clean.items())[:2]) or "no photo"
        lines += [f"{found.leaks.leaked} photos have a near-duplicate in training; without them: {clean}.", ""]
    return "\n".join(lines).encode()


def _gate_cells(gate: Gate) -> list[str]:
    name, wanted = told(gate.as_json())
    note = "" if gate.resolvable else f"not resolvable with {gate.photos} photos"
    return [name, f"{gate.value:.4f}", _interval(gate.interval), wanted, note]


def _interval(found: Interval | None) -> str:
    return f"{found.low:.4f} to {found.high:.4f}" if found else ""


def _printable(text: str) -> str:
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", text)
