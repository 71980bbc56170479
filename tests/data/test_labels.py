import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml import storage
from plantml.data.labels import Taxonomy, draft, load_taxonomy, read_names, with_health
from plantml.errors import InputError, NotFoundError

PLANTDOC = """Apple Scab Leaf|Apple leaf|Apple rust leaf|Bell_pepper leaf|Bell_pepper leaf spot|Blueberry leaf|
Cherry leaf|Corn Gray leaf spot|Corn leaf blight|Corn rust leaf|Peach leaf|Potato leaf early blight|
Potato leaf late blight|Raspberry leaf|Soyabean leaf|Squash Powdery mildew leaf|Strawberry leaf|
Tomato Early blight leaf|Tomato Septoria leaf spot|Tomato leaf|Tomato leaf bacterial spot|Tomato leaf late blight|
Tomato leaf mosaic virus|Tomato leaf yellow virus|Tomato mold leaf|Tomato two spotted spider mites leaf|
grape leaf|grape leaf black rot""".replace("\n", "").split("|")

words = st.text(st.characters(categories=("L", "N"), include_characters=" _-"), min_size=1, max_size=12)
targets = st.sampled_from(["category", "health", "disease", "viability"])


def meaning(names, rule="auto"):
    return {name: dict(labels) for name, labels in read_names(names, rule).meaning.items()}


# --- guessing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("Apple___Apple_scab", ("Apple", "diseased", "Apple_scab")),
        ("Pepper,_bell___Bacterial_spot", ("Pepper,_bell", "diseased", "Bacterial_spot")),
        ("Corn_(maize)___Common_rust_", ("Corn_(maize)", "diseased", "Common_rust_")),
        ("Orange___Haunglongbing_(Citrus_greening)", ("Orange", "diseased", "Haunglongbing_(Citrus_greening)")),
        ("Tomato___healthy", ("Tomato", "healthy", "none")),
        ("Soybean___Healthy", ("Soybean", "healthy", "none")),
    ],
)
def test_plantvillage_names_say_plant_and_disease(name, labels):
    found = meaning([name, "Squash___Powdery_mildew"])[name]
    assert found == dict(zip(("category", "health", "disease"), labels, strict=True))


def test_plantdoc_names_say_plant_and_disease():
    found = meaning(PLANTDOC)
    assert all("category" in labels for labels in found.values())
    assert found["Tomato leaf late blight"] == {"category": "Tomato", "health": "diseased", "disease": "late blight"}
    assert found["Bell_pepper leaf spot"]["category"] == found["Bell_pepper leaf"]["category"] == "Bell_pepper"
    assert found["grape leaf black rot"]["disease"] == "black rot"
    assert found["Soyabean leaf"] == {"category": "Soyabean"}


def test_a_plain_leaf_is_not_called_diseased():
    assert meaning(["Tomato leaf", "Tomato leaf late blight"])["Tomato leaf"] == {"category": "Tomato"}


def test_a_plant_in_some_names_only_belongs_to_the_disease():
    assert meaning(["healthy", "angular_leaf_spot", "bean_rust"]) == {
        "angular_leaf_spot": {"health": "diseased", "disease": "angular_leaf_spot"},
        "bean_rust": {"health": "diseased", "disease": "bean_rust"},
        "healthy": {"health": "healthy", "disease": "none"},
    }


@pytest.mark.parametrize(
    ("names", "name", "labels"),
    [
        (["Rice_Brown_Spot", "Rice_Healthy"], "Rice_Healthy", ("Rice", "healthy", "none")),
        (
            ["cassava bacterial blight", "cassava normal"],
            "cassava bacterial blight",
            ("cassava", "diseased", "bacterial blight"),
        ),
        (["sweet-potato-rust", "sweet-potato-healthy"], "sweet-potato-rust", ("sweet-potato", "diseased", "rust")),
    ],
)
def test_separators_may_be_anything_between_words(names, name, labels):
    assert meaning(names)[name] == dict(zip(("category", "health", "disease"), labels, strict=True))


def test_names_that_say_nothing_of_diseases_are_categories():
    assert meaning(["daisy", "dandelion", "iris"]) == {
        name: {"category": name} for name in ("daisy", "dandelion", "iris")
    }


def test_one_name_out_of_line_does_not_break_the_others():
    found = meaning(["Tomato___late_blight", "background"])
    assert set(found) == {"Tomato___late_blight", "background"}
    assert "category" not in found["background"] or found["background"]["category"] == "background"


def test_the_rule_is_told_in_words():
    assert read_names(["Tomato___healthy"]).rule == "category___disease"
    assert read_names(["healthy", "rust"]).rule == "disease"
    assert read_names(["daisy"]).rule == "category"
    assert read_names([]).rule == "no class names"


@given(st.lists(words, min_size=1, max_size=8))
def test_guessing_gives_every_name_a_meaning_whatever_the_order(names):
    found = read_names(names)
    assert set(found.meaning) == set(names)
    assert all(found(name) for name in names)
    assert read_names([*reversed(names), *names]) == found


@given(st.lists(words, min_size=1, max_size=8))
def test_health_and_disease_never_contradict_each_other(names):
    for labels in read_names(names).meaning.values():
        if "disease" in labels:
            assert (labels["health"] == "healthy") == (labels["disease"] == "none")


# --- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "name", "labels"),
    [
        ("disease", "bean_rust", {"health": "diseased", "disease": "bean_rust"}),
        ("disease", "normal", {"health": "healthy", "disease": "none"}),
        ("viability", "weak", {"viability": "weak"}),
        ("health", "healthy", {"health": "healthy"}),
        ("crop___disease", "Tomato___mold", {"category": "Tomato", "health": "diseased", "disease": "mold"}),
        ("species", "Acer rubrum", {"category": "Acer rubrum"}),
        ("category/disease", "Tomato/healthy", {"category": "Tomato", "health": "healthy", "disease": "none"}),
        ("category--viability", "bean--weak", {"category": "bean", "viability": "weak"}),
        ("disease__category", "rust__bean", {"category": "bean", "health": "diseased", "disease": "rust"}),
        ("category+severity+disease", "bean+low+rust",
         {"category": "bean", "health": "diseased", "disease": "rust", "severity": "low"}),
        ("none", "bean_rust", {}),
    ],
)  # fmt: skip
def test_a_pattern_names_the_targets(rule, name, labels):
    assert meaning([name], rule) == {name: labels}


def test_the_last_part_of_a_pattern_takes_the_rest():
    assert meaning(["a___b___c"], "category___disease")["a___b___c"]["disease"] == "b___c"


def test_a_name_that_does_not_follow_the_pattern_is_named_and_the_way_out_too():
    with pytest.raises(InputError) as caught:
        read_names(["Tomato___healthy", "plain"], "category___disease")
    assert "'plain'" in caught.value.what
    assert "___" in caught.value.why
    assert "--draft-taxonomy" in caught.value.hint


@pytest.mark.parametrize("rule", ["Disease", "two words", "category___", "___disease", ""])
def test_a_rule_that_names_no_target_is_refused(rule):
    with pytest.raises(InputError):
        read_names(["a___b"], rule)


@pytest.mark.parametrize(
    ("given_", "labels"),
    [
        ({}, {}),
        ({"category": "bean"}, {"category": "bean"}),
        ({"disease": "rust"}, {"health": "diseased", "disease": "rust"}),
        ({"disease": "Healthy"}, {"health": "healthy", "disease": "none"}),
        ({"disease": "none"}, {"health": "healthy", "disease": "none"}),
        ({"disease": "rust", "health": "stressed"}, {"health": "stressed", "disease": "rust"}),
        ({"health": "healthy"}, {"health": "healthy"}),
        *[({"disease": word, "category": "bean"}, {"category": "bean"}) for word in ("n/a", "Unknown", "-", " ? ")],
    ],
)
def test_health_is_told_by_the_disease_unless_it_is_said(given_, labels):
    assert with_health(given_) == labels


# --- a taxonomy to edit -----------------------------------------------------------------------


def test_targets_come_in_the_order_of_their_first_appearance():
    taxonomy = Taxonomy({"a": {"category": "x"}, "b": {"disease": "y", "category": "x"}, "c": {}}, "")
    assert taxonomy.targets == ("category", "disease")


def test_an_unknown_class_is_named():
    with pytest.raises(InputError, match="'weeds'"):
        read_names(["daisy", "iris"])("weeds")


@given(st.dictionaries(words, st.dictionaries(targets, words, max_size=3), min_size=1, max_size=6))
def test_a_draft_that_nobody_mends_means_the_same(classes):
    storage.write("memory://draft/map.yaml", draft(Taxonomy(classes, "")).encode())
    assert load_taxonomy("memory://draft/map.yaml").meaning == classes


@pytest.mark.parametrize("name", ["no", "on", "null", "1.0", "2024-01-01", "~", "größe", "a: b", "- a", "#x"])
def test_names_that_mean_something_in_yaml_survive_a_draft(name, tmp_path):
    file = tmp_path / "map.yaml"
    file.write_text(draft(Taxonomy({name: {"category": name}}, "")), encoding="utf-8")
    assert load_taxonomy(str(file)).meaning == {name: {"category": name}}


def test_a_draft_explains_itself():
    text = draft(read_names(["Tomato___healthy"]))
    assert text.startswith("#")
    assert "--taxonomy" in text


def test_a_mended_taxonomy_is_read_from_anywhere(memory_url):
    url = storage.join(memory_url, "map.yaml")
    storage.write(url, b"rust: {category: bean, disease: rust}\n7: {category: corn, disease: }\n")
    taxonomy = load_taxonomy(url)
    assert taxonomy("rust") == {"category": "bean", "disease": "rust"}
    assert taxonomy("7") == {"category": "corn"}
    assert taxonomy.rule == url


@pytest.mark.parametrize(
    "text",
    ["", "- a\n- b", "a: bean", "a: [bean]", "a: {Disease: rust}", "a: {", "a: {two words: x}"],
    ids=["empty", "list", "text", "inner list", "capital", "broken", "space"],
)
def test_a_file_that_is_no_taxonomy_says_why(text, tmp_path):
    file = tmp_path / "map.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_taxonomy(str(file))
    assert caught.value.why


def test_a_missing_taxonomy_is_told(tmp_path):
    with pytest.raises(NotFoundError):
        load_taxonomy(str(tmp_path / "map.yaml"))


def test_names_that_look_the_same_are_one_class():
    composed, apart = "caf\u00e9 rust", "cafe\u0301 rust"
    taxonomy = read_names([" healthy", "healthy", "rust ", "rust", composed, apart])
    assert taxonomy(" healthy") == taxonomy("healthy") == {"health": "healthy", "disease": "none"}
    assert taxonomy("rust ")["disease"] == taxonomy("rust")["disease"] == "rust"
    assert taxonomy(composed) == taxonomy(apart)


def test_an_empty_part_of_a_name_is_no_label():
    assert read_names(["Apple___", "___rust"], "category___disease").meaning == {
        "Apple___": {"category": "Apple"},
        "___rust": {"health": "diseased", "disease": "rust"},
    }
