"""Whatever the text is, it is plain data or the error that was asked for."""

import contextlib
import importlib.util
import json
import math
import subprocess
import sys
from types import ModuleType

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import parsing, yaml12
from plantml.errors import Exit, InputError, PlantmlError, UsageError
from plantml.parsing import dump_yaml, parse_json, parse_json_object, parse_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | TEXT
    | st.sampled_from(
        ["no", "on", "1e-3", "0x1f", "0o17", "017", "1:30", "2020-01-02", "~", "<<", "=", ".5", "_1", "", "a\n\nb\n"]
    )
)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
TOKENS = st.lists(
    st.sampled_from(
        ["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<", "? ", "|", ">", "'", '"', "#",
         "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp ", "!!set ", "!!map ", "!!seq ", "!!str ", "!!merge ",
         "!!binary ", "!!omap ", "!!value ", "!", "%YAML 1.1\n", "---\n", "...\n", "=", "1", "9" * 5000, "0x",
         "2020-13-45", ".nan", "1e999", "\\ud800", "\x00", "\x85", "\u2028", "\ufeff", "\t", "[" * 70, "🌱"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


# --- laws -------------------------------------------------------------------------------------


@given(TOKENS | TEXT | st.binary(max_size=20))
@settings(max_examples=400, deadline=None)
def test_whatever_the_text_is_only_the_asked_error_is_raised(text: str | bytes) -> None:
    for parse in (parse_yaml, parse_json):
        with contextlib.suppress(UsageError):
            parse(text, "the text", UsageError)


@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_what_was_written_as_yaml_is_read_as_the_same(value: object) -> None:
    assert parse_yaml(dump_yaml(value), "it") == value
    line = dump_yaml(value, one_line=True)
    assert len(line.splitlines()) <= 1
    assert parse_yaml(line, "it") == value


@given(PLAIN)
@settings(max_examples=50, deadline=None)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value), "it") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "it") == value


@pytest.fixture(scope="module")
def without_libyaml() -> ModuleType:
    """`yaml12` as it is where PyYAML was built without libyaml."""
    spec = importlib.util.spec_from_file_location("slow_yaml12", str(yaml12.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "__with_libyaml__", False)
        spec.loader.exec_module(module)
    return module


@given(value=PLAIN)
@settings(max_examples=50, deadline=None)
def test_without_libyaml_the_same_is_read(value: object, without_libyaml: ModuleType) -> None:
    assert without_libyaml.Loader(dump_yaml(value)).get_single_data() == value


@pytest.mark.parametrize("text", ["a: 1\na: 2", "[" * 100, "!!int x", "&a [*a]"])
def test_without_libyaml_the_same_is_refused(text: str, without_libyaml: ModuleType) -> None:
    with pytest.raises(yaml.MarkedYAMLError):
        without_libyaml.Loader(text).get_single_data()


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9" * 5000, "a number of 5,000 characters"),
        ("0x" + "f" * 5000, "a number of 5,002 characters"),
        ("!!int abc", "not a number: abc"),
        ("!!int [1]", "expected a scalar"),
        ("!!float abc", "not a number: abc"),
        ("!!bool abc", "neither true nor false: abc"),
        ("!!null abc", "not null: abc"),
        ("!!timestamp x", "!!timestamp"),
        ("!!python/object:os.system x", "!!python/object"),
        ("!!str [a]", "expected a scalar"),
        ("a: [1", "while parsing a flow sequence"),
        ("a\n---\nb", "another document"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        ("- " * 100_000, "nested deeper than 64 levels"),
        ("? [a]\n: b", "a key must be a plain value"),
        ("? !!map", "a key must be a plain value"),
        ("&a [*a]", "stands for itself"),
        ("a: *b", "undefined alias"),
        ("<<: 3", "merging"),
        (b"\xff", "invalid"),
        ("\ud800", "Unicode"),
        ("\0", "control characters"),
    ],
)
def test_text_that_is_no_plain_data_is_refused_with_a_reason(text: str | bytes, why: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "conf.yaml")
    assert caught.value.what == "conf.yaml is not valid YAML"
    assert why in caught.value.why
    assert len(caught.value.why) < 200


def test_the_error_has_the_line_the_hint_and_the_exit_code_that_were_asked_for() -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml("a: 1\nb: !!int x\n", "--set a=…", UsageError, hint="Put quotes around it.")
    assert caught.value.why == "line 2, column 4: not a number: x"
    assert caught.value.hint == "Put quotes around it."
    assert caught.value.exit_code == Exit.USAGE


@pytest.mark.parametrize("first", ["lr: 1", "'lr': 1"])
def test_a_key_that_is_there_twice_names_both_lines(first: str) -> None:
    with pytest.raises(InputError, match="the key 'lr' is there twice: in line 1 and in line 3"):
        parse_yaml(f"{first}\nseed: 2\nlr: 3\n", "conf.yaml")


def test_keys_that_are_written_otherwise_are_still_the_same_key() -> None:
    with pytest.raises(InputError, match="there twice"):
        parse_yaml("names: {1: a, 0x1: b}", "data.yaml")


def test_a_key_may_replace_one_that_was_merged_in() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}", "it")["b"] == {"x": 3, "y": 2}


def test_aliases_cannot_make_a_small_file_large() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(InputError, match="each alias counted"):
        parse_yaml("\n".join(lines), "bomb.yaml")


def test_a_file_beyond_any_use_is_not_read() -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(b" " * (parsing.MAX_YAML_BYTES + 1), "big.yaml")
    assert caught.value.what == "big.yaml is too large"
    assert f"{parsing.MAX_YAML_BYTES:,}" in caught.value.why


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml12, "MAX_NODES", 100)
    assert len(parse_yaml("[" + "a," * 90 + "]", "it")) == 90
    with pytest.raises(InputError, match="over 100 values"):
        parse_yaml("[" + "a," * 101 + "]", "it")


# --- version 1.2 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2020-13-45", "2020-13-45"),
        ("2020-01-02", "2020-01-02"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("017", 17),
        ("0o17", 15),
        ("0x1f", 31),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("~", None),
        ("", None),
        ("=", "="),
    ],
)
def test_plain_scalars_are_what_version_1_2_says(text: str, value: object) -> None:
    read = parse_yaml(text, "it")
    assert (read, type(read)) == (value, type(value))


# --- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "line 1 column 2"),
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "too many digits"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('"\\ud800"'.encode("utf-16"), "half of a surrogate pair"),
        ('"\ud800"', "half of a surrogate pair"),
        (b'"\xed\xa0\x80"', "byte 1 is not utf-8"),
        (b"\xff", "byte 0 is not utf-8"),
    ],
)
def test_text_that_is_no_json_is_refused_with_a_reason(text: str | bytes, why: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(text, "a.json")
    assert caught.value.what == "a.json is not valid JSON"
    assert why in caught.value.why


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_json('"\\ud83c\\udf31"', "it") == "🌱"


@pytest.mark.parametrize(("text", "kind"), [("[1]", "a list"), ("3", "a number"), ("null", "null"), ("true", "true")])
def test_json_that_is_no_object_is_told(text: str, kind: str) -> None:
    with pytest.raises(PlantmlError, match=f"a JSON object, not {kind}"):
        parse_json_object(text, "a.json")
    assert parse_json_object('{"a": 1}', "a.json") == {"a": 1}


def test_reading_json_does_not_load_yaml() -> None:
    code = "import sys; from plantml.parsing import parse_json; parse_json('1', 'it'); sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
