import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts import make_contract

from plantml.imaging import Fit
from plantml.model.contract import Architecture, Combinations, Contract, Detection, Origin, Withheld
from plantml.model.records import Reader, Record, answer_to, failed
from plantml.targets import Target

CATEGORY = Target("category", "class", ("bean", "tomato", "maize"))
DISEASE = Target("disease", "class", ("none", "rust"))
SYMPTOMS = Target("symptoms", "multilabel", ("spots", "curl", "rot"))
SEVERITY = Target("severity", "value", unit="fraction")
KEYS = [
    "plantml_record", "image", "image_id", "width", "height", "model", "targets", "boxes", "decision", "unknown",
    "failure",
]  # fmt: skip


def contract(*targets, thresholds=None, unknown=0.5):
    return Contract(
        targets=targets,
        input=Fit(8, 8),
        architecture=Architecture(backbone="none", embedding=1, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1),
        temperatures={},
        thresholds=thresholds or {},
        unknown_threshold=unknown,
        dataset=Origin(url="data", version=1, fingerprint=""),
        metrics={},
        seed=0,
        versions={},
    )


def outputs(unknown=0.1, **answers):
    result = {f"target.{name}": np.array([answer], np.float32) for name, answer in answers.items()}
    return result | {"unknown": np.array([unknown], np.float32)}


def read(of_contract, found, **options):
    return Reader(of_contract, **options).read(found, 0)


def decision(found, **of_contract):
    return read(contract(CATEGORY, DISEASE, **of_contract), found)[1]


# --- answers ----------------------------------------------------------------------------------


def test_a_class_is_its_best_label_and_the_next_ones():
    answers, _, _ = read(contract(CATEGORY), outputs(category=[0.2, 0.1, 0.7]), top_k=2)
    assert answers == {"category": {"label": "maize", "score": 0.7, "top": [["maize", 0.7], ["bean", 0.2]]}}


def test_top_is_no_longer_than_the_classes_and_keeps_the_order_of_equals():
    answers, _, _ = read(contract(CATEGORY), outputs(category=[0.25, 0.5, 0.25]), top_k=9)
    assert answers["category"]["top"] == [["tomato", 0.5], ["bean", 0.25], ["maize", 0.25]]


def test_a_set_has_the_labels_from_one_half_the_surest_first():
    answers, _, _ = read(contract(SYMPTOMS), outputs(symptoms=[0.5, 0.499, 0.9]))
    assert answers == {"symptoms": {"labels": [["rot", 0.9], ["spots", 0.5]]}}


def test_a_value_has_its_unit():
    answers, _, _ = read(contract(SEVERITY), outputs(severity=[0.3123456789]))
    assert answers == {"severity": {"value": 0.312346, "unit": "fraction"}}


def test_each_row_of_a_batch_is_read_for_itself():
    result = {"target.disease": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), "unknown": np.array([0.1, 0.9])}
    reader = Reader(contract(DISEASE))
    assert [reader.read(result, row)[0]["disease"]["label"] for row in (0, 1)] == ["none", "rust"]
    assert [reader.read(result, row)[2] for row in (0, 1)] == [0.1, 0.9]


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.integers(1, 5))
@settings(deadline=None)
def test_top_is_sorted_and_starts_with_the_answer(scores, top_k):
    answers, _, _ = read(contract(CATEGORY), outputs(category=scores), top_k=top_k)
    answer = answers["category"]
    assert answer["top"][0] == [answer["label"], answer["score"]]
    assert [score for _, score in answer["top"]] == sorted((round(score, 6) for score in scores), reverse=True)[:top_k]
    assert scores[CATEGORY.classes.index(answer["label"])] == max(scores)


# --- decisions --------------------------------------------------------------------------------

SURE = {"category": [0.9, 0.05, 0.05], "disease": [0.2, 0.8]}


@pytest.mark.parametrize(
    ("thresholds", "unknown", "wanted"),
    [
        ({}, 0.1, "accept"),
        ({"category": 0.9, "disease": 0.8}, 0.1, "accept"),
        ({"category": 0.91}, 0.1, "review"),
        ({"disease": 0.81}, 0.1, "review"),
        ({"disease": 1.01}, 0.51, "unknown"),
        ({}, 0.51, "unknown"),
        ({}, 0.5, "accept"),
    ],
)
def test_an_image_is_decided_by_its_worst_target(thresholds, unknown, wanted):
    assert decision(outputs(unknown, **SURE), thresholds=thresholds) == wanted


def test_a_set_is_as_sure_as_its_least_sure_label():
    doubtful = outputs(symptoms=[0.95, 0.3, 0.02])
    assert read(contract(SYMPTOMS, thresholds={"symptoms": 0.69}), doubtful)[1] == "accept"
    assert read(contract(SYMPTOMS, thresholds={"symptoms": 0.71}), doubtful)[1] == "review"


@given(
    st.permutations([CATEGORY, DISEASE]),
    st.floats(0, 1.01),
    st.floats(0, 1.01),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_the_order_of_targets_decides_nothing(targets, category, disease, unknown):
    thresholds = {"category": category, "disease": disease}
    result = outputs(unknown, **SURE)
    made = read(contract(*targets, thresholds=thresholds), result)[1]
    doubtful = category > 0.9 or disease > 0.8
    assert made == ("unknown" if round(float(np.float32(unknown)), 6) > 0.5 else "review" if doubtful else "accept")


# --- records ----------------------------------------------------------------------------------


def test_every_record_has_all_keys_in_order_and_is_plain_json():
    answers, made, unknown = read(contract(CATEGORY, SYMPTOMS, SEVERITY), outputs(
        category=[0.2, 0.1, 0.7], symptoms=[0.9, 0.1, 0.1], severity=[0.5]
    ))  # fmt: skip
    answered = Record("leaf.jpg", "ab" * 32, 40, 30, "digest", answers, (), made, unknown, None).as_json()
    lost = failed("lost.jpg", "digest", "not-found: gone").as_json()
    for record in (answered, lost):
        assert list(record) == KEYS
        assert json.loads(json.dumps(record)) == record
        assert record["plantml_record"] == 1
    assert answered["failure"] is None
    assert answered["unknown"] == 0.1
    nothing = ("image_id", "width", "height", "targets", "decision", "unknown")
    assert [lost[key] for key in nothing] == [None] * 6
    assert (lost["image"], lost["model"], lost["failure"]) == ("lost.jpg", "digest", "not-found: gone")


def test_a_failure_keeps_the_hash_of_bytes_that_were_read():
    assert failed("leaf.jpg", "digest", "empty", "ab").as_json()["image_id"] == "ab"


def test_labels_that_were_never_seen_together_are_for_review_where_only_such_may_be():
    content = contract(CATEGORY, DISEASE).model_copy(
        update={
            "combinations": Combinations(targets=("category", "disease"), seen=(("bean", "none"), ("bean", "rust")))
        }
    )
    assert read(content, outputs(category=[0.9, 0.1, 0.0], disease=[0.2, 0.8]))[1] == "accept"
    assert read(content, outputs(category=[0.1, 0.9, 0.0], disease=[0.2, 0.8]))[1] == "review"
    assert read(contract(CATEGORY, DISEASE), outputs(category=[0.1, 0.9, 0.0], disease=[0.2, 0.8]))[1] == "accept"


# --- what does not apply ----------------------------------------------------------------------

VIABILITY = Target("viability", "class", ("viable", "missing"))
EMPTY = Withheld(targets=("category", "disease", "severity"), where="viability", label="missing")


@pytest.mark.parametrize(
    ("viability", "answered", "wanted"),
    [
        ([0.2, 0.8], ["viability"], "accept"),
        ([0.4, 0.6], ["viability"], "review"),  # its own score is too low
        ([0.8, 0.2], ["category", "disease", "severity", "viability"], "review"),
    ],
)
def test_an_empty_cell_has_no_species_and_is_not_in_doubt_about_it(viability, answered, wanted):
    content = contract(CATEGORY, DISEASE, SEVERITY, VIABILITY, thresholds={"category": 0.9, "viability": 0.7})
    content = content.model_copy(update={"withheld": (EMPTY,)})
    given = outputs(category=[0.6, 0.4, 0.0], disease=[0.5, 0.5], severity=[0.1], viability=viability)
    answers, made, _ = read(content, given)
    assert (list(answers), made) == (answered, wanted)
    assert answer_to("category", answers)[0] == answered[0]


def test_what_is_withheld_contradicts_nothing():
    health = Target("health", "class", ("healthy", "diseased"))
    content = contract(health, DISEASE, VIABILITY)
    given = outputs(health=[0.1, 0.9], disease=[0.9, 0.1], viability=[0.0, 1.0])
    assert read(content, given)[1] == "review"
    rule = Withheld(targets=("disease",), where="viability", label="missing")
    assert read(content.model_copy(update={"withheld": (rule,)}), given)[1] == "accept"


# --- boxes ------------------------------------------------------------------------------------

FINDS = Detection(boxes=3, slope=1.0, offset=0.0, threshold=0.3, accept=0.6)


def found_boxes(rows, scores, **answers):
    result = {f"target.{name}": np.array([answer], np.float32) for name, answer in answers.items()}
    return result | {"boxes": np.array([rows], np.float32), "score": np.array([scores], np.float32)}


def read_boxes(outputs, *targets, size=(16, 8), **changes):
    reader = Reader(make_contract(*targets, detection=FINDS, **changes))
    record = Record("a.jpg", "id", *size, "model", {}, (), None, None, None)
    record = reader.with_boxes(record, reader.read_boxes(outputs, 0, *size))
    return record.boxes, record.decision


def test_boxes_that_count_are_in_pixels_of_the_photo_with_targets_and_decision():
    # A photo of 16 x 8 lies in the middle of the input of 8 x 8, at half its size.
    boxes, decision = read_boxes(
        found_boxes(
            [[1, 3, 2, 2], [4, 2, 2, 2], [0, 2, 1, 1]], [0.9, 0.4, 0.2], disease=[[0.2, 0.8], [0.9, 0.1], [1, 0]]
        ),
        DISEASE,
    )
    assert [(box["x"], box["y"], box["w"], box["h"]) for box in boxes] == [(2, 2, 4, 4), (8, 0, 4, 4)]
    assert [box["targets"]["disease"]["label"] for box in boxes] == ["rust", "none"]
    assert [box["decision"] for box in boxes] == ["accept", "review"]
    assert decision == "review"


def test_an_empty_cell_counts_in_no_class_of_what_does_not_apply():
    rule = Withheld(targets=("disease",), where="viability", label="missing")
    found = found_boxes([[1, 3, 2, 2], [4, 2, 2, 2]], [0.9, 0.9], disease=[[0.9, 0.1]] * 2, viability=[[1, 0], [0, 1]])
    reader = Reader(make_contract(DISEASE, VIABILITY, detection=FINDS, withheld=(rule,)))
    boxes = reader.read_boxes(found, 0, 16, 8)
    assert [list(box["targets"]) for box in boxes] == [["disease", "viability"], ["viability"]]
    counts = {"boxes": 2, "disease": {"none": 1, "rust": 0}, "viability": {"viable": 1, "missing": 1}}
    assert reader.count(boxes) == counts


def test_a_photo_without_boxes_is_accepted():
    assert read_boxes(found_boxes([[0, 0, 1, 1]] * 3, [0.2, 0.1, 0.0])) == ((), "accept")


def test_boxes_in_the_padding_are_none_and_others_end_at_the_edge():
    boxes, _ = read_boxes(found_boxes([[0, 0, 8, 1.5], [6, 1, 4, 3], [0, 0, 0, 0]], [0.9, 0.8, 0.7]))
    assert [(box["x"], box["y"], box["w"], box["h"]) for box in boxes] == [(12, 0, 4, 4)]


def test_the_doubt_about_a_target_is_that_of_its_box():
    outputs = found_boxes([[1, 3, 2, 2]] * 3, [0.9, 0.8, 0.1], disease=[[0.4, 0.6], [0.1, 0.9], [1, 0]])
    boxes, decision = read_boxes(outputs, DISEASE, thresholds={"disease": 0.7})
    assert [box["decision"] for box in boxes] == ["review", "accept"]
    assert decision == "review"
