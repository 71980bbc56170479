from xml.etree import ElementTree as ET

PHOTOS = [("rust", "rust", {}), ("none", "none", {}), ("rust", "none", {}), ("blight", "blight", {})] * 3


def test_a_test_case_for_every_gate(paint, painted, judged, tmp_path):
    gates = ("macro_f1=0.1", "disease.recall[rust]=0.99")
    judged(paint(PHOTOS), painted(), junit=str(tmp_path / "gates.xml"), min=gates)
    suites = ET.parse(tmp_path / "gates.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("2", "1")
    cases = {case.get("name"): case for case in suites.iter("testcase")}
    assert list(cases) == ["macro_f1 min 0.1", "disease.recall[rust] min 0.99"]
    assert cases["macro_f1 min 0.1"].find("failure") is None
    assert "= 0.5000 [" in cases["disease.recall[rust] min 0.99"].find("failure").get("message")


def test_no_gate_is_a_test_that_passes(paint, painted, judged, tmp_path):
    judged(paint(PHOTOS), painted(), junit=str(tmp_path / "gates.xml"))
    suites = ET.parse(tmp_path / "gates.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("1", "0")


def test_the_summary_has_verdict_gates_scores_and_slices(paint, painted, judged, tmp_path):
    data = paint([(*photo[:2], {"site": "c" if number % 2 else "a|b"}) for number, photo in enumerate(PHOTOS * 2)])
    other = painted(digest="other")
    file = tmp_path / "summary.md"
    judged(data, painted(), other, against="runs/old", max_drop=0.01, min=("macro_f1=0.99",), markdown=str(file))
    text = file.read_text()
    assert "**A gate failed.**" in text
    assert "| **FAILED** | macro_f1 |" in text
    assert (
        "| passed | drop of disease.macro_f1 | 0.0000 | -0.1425 to 0.1425 | at most 0.01 | not resolvable with 24"
        in text
    )
    assert "No significant difference" in text
    assert "site: a\\|b" in text
    tables = [line for line in text.splitlines() if line.startswith("|---")]
    assert len(tables) == 4
