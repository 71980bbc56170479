"""From class names to labels: by a rule, or by a taxonomy that the user edits.

`Apple___black_rot`, `Pepper_bell___healthy` and "Tomato leaf late blight" each name a category, a health and a
disease. A rule reads them all the same way. If it guesses wrong, `draft` writes the guesses to a YAML file that
the user corrects and passes to the import.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from plantml import storage
from plantml.errors import InputError
from plantml.parsing import dump_yaml, parse_yaml
from plantml.targets import DISEASED, HEALTHY, NO_DISEASE, check_name

Labels = Mapping[str, str]
"""Class by target name; missing targets are not labelled."""

_ALIASES = {"crop": "category", "plant": "category", "species": "category"}
_HEALTHY_WORDS = {"healthy", "normal", "sano", "sain", "gesund"}
_MISSING_WORDS = {"n/a", "na", "nan", "null", "unknown", "unlabelled", "unlabeled", "?", "-"}
_FILLER = {"leaf", "leaves", "plant", "plants", "with", "infected", "by", "and", "the", "of"}
_SYMPTOMS = {
    "spot", "spots", "rust", "blight", "mildew", "rot", "scab", "mold", "mould", "virus", "mosaic", "wilt", "canker",
    "anthracnose", "curl", "scorch", "blast", "smut", "streak", "bacterial", "blotch", "esca", "greening", "gall",
    "yellowing", "yellow", "chlorosis", "necrosis", "deficiency", "mite", "mites", "aphid", "aphids", "miner",
    "thrips", "whitefly", "bug", "worm", "dieback", "lesion", "disease", "diseased", "septoria", "cercospora",
    "alternaria", "fusarium", "phytophthora", "botrytis", "sigatoka", "leafroll", "crinkle", "bollworm", "armyworm",
}  # fmt: skip
_CROPS = {
    "apple", "apricot", "avocado", "banana", "barley", "basil", "bean", "beans", "beet", "blueberry", "cabbage",
    "cacao", "carrot", "cassava", "celery", "cherry", "chickpea", "chili", "chilli", "citrus", "cocoa", "coconut",
    "coffee", "corn", "cotton", "cowpea", "cucumber", "eggplant", "fig", "garlic", "ginger", "grape", "grapes",
    "grapevine", "groundnut", "guava", "hazelnut", "hop", "jackfruit", "jute", "kiwi", "lemon", "lentil", "lettuce",
    "lime", "maize", "mango", "melon", "millet", "mint", "oat", "oats", "olive", "onion", "orange", "papaya", "pea",
    "peach", "peanut", "pear", "pepper", "pineapple", "plum", "pomegranate", "potato", "pumpkin", "radish",
    "rapeseed", "raspberry", "rice", "rose", "rye", "sorghum", "soy", "soya", "soyabean", "soybean", "spinach",
    "squash", "strawberry", "sugarcane", "sunflower", "tea", "tobacco", "tomato", "vine", "walnut", "watermelon",
    "wheat", "zucchini",
}  # fmt: skip
_CROP_PREFIXES = {"bell", "sweet", "cherry", "black", "red", "green", "winter", "spring", "sugar"}
_WORD = re.compile(r"[^\s_\-,()]+")


@dataclass(frozen=True)
class Taxonomy:
    """The labels of each class name. `rule` is a description of how they were read."""

    meaning: Mapping[str, Labels]
    rule: str

    def __call__(self, name: str) -> Labels:
        """The labels of one class name. Raises `InputError` for an unknown name."""
        try:
            return self.meaning[name]
        except KeyError:
            why = f"it has {len(self.meaning)} others"
            raise InputError(f"The taxonomy lacks the class {name!r}", why, "Add it.") from None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of all targets that any class has, in order of first appearance."""
        return tuple(dict.fromkeys(target for labels in self.meaning.values() for target in labels))


def read_names(names: Iterable[str], rule: str = "auto") -> Taxonomy:
    """Read class names by a rule.

    Args:
        names: the distinct class names of a source, such as folder names.
        rule: `auto`; `none`; one target's name (`disease`: the whole name is its class); or a pattern
            of target names and separators (`crop___disease`, `category/disease`).

    Raises:
        InputError: the rule is invalid, or a name does not follow it.
    """
    plain = {name: plain_text(name) for name in sorted(set(names))}
    distinct = sorted(set(plain.values()))
    if rule == "none":
        return Taxonomy({name: {} for name in plain}, "no labels")
    if rule == "auto":
        taxonomy = _guess(distinct)
    else:
        taxonomy = Taxonomy({name: _by_pattern(name, rule) for name in distinct}, rule)
    return replace(taxonomy, meaning={name: taxonomy.meaning[text] for name, text in plain.items()})


def plain_text(name: str) -> str:
    """A name without spaces around it, its accents composed (NFC): names that look the same are the same class."""
    return unicodedata.normalize("NFC", name).strip()


def load_taxonomy(url: str) -> Taxonomy:
    """A taxonomy from YAML: `class name: {target: class, …}`. Raises `InputError`."""
    content = parse_yaml(storage.read(url), url)
    if not isinstance(content, dict):
        raise InputError(
            f"{url} is not a taxonomy",
            "it must map class names to their targets",
            "Draft one: plantml dataset import SRC DATASET --draft-taxonomy map.yaml",
        )
    meaning: dict[str, Labels] = {}
    for name, labels in content.items():
        if not isinstance(labels, dict):
            raise InputError(
                f"{url} is not a taxonomy",
                f"{name!r} must be followed by target: class pairs",
                "Write it like rust: {category: bean, disease: rust}.",
            )
        meaning[str(name)] = {check_name(str(key)): str(value) for key, value in labels.items() if value is not None}
    return Taxonomy(meaning, url)


def draft(taxonomy: Taxonomy) -> str:
    """The taxonomy as YAML to edit."""
    head = (
        "# The labels of each class name. Edit them, then: plantml dataset import SRC DATASET --taxonomy THIS-FILE\n"
        "# Leave out a target that is unknown. A healthy plant has the disease `none`.\n"
    )
    body = {name: dict(labels) for name, labels in taxonomy.meaning.items()}
    return head + dump_yaml(body, sort_keys=True)


def with_health(labels: Labels) -> dict[str, str]:
    """`labels` with health derived from a known disease, and a "healthy" disease named `none`."""
    labels = with_known_disease(labels)
    disease = labels.get("disease")
    if disease is None:
        return dict(labels)
    if disease.lower() in _HEALTHY_WORDS | {NO_DISEASE}:
        return {**labels, "health": labels.get("health", HEALTHY), "disease": NO_DISEASE}
    return {**labels, "health": labels.get("health", DISEASED)}


def with_known_disease(labels: Labels) -> dict[str, str]:
    """`labels` without a disease that says nothing, such as `n/a` or `unknown`: null means not labelled."""
    is_missing = str(labels.get("disease")).strip().lower() in _MISSING_WORDS
    return {name: label for name, label in labels.items() if name != "disease" or not is_missing}


def _by_pattern(name: str, rule: str) -> dict[str, str]:
    parts = re.split(r"(___|__|/|--|\+)", rule)
    targets, separators = parts[::2], parts[1::2]
    targets = [check_name(_ALIASES.get(target, target)) for target in targets]
    values = []
    rest = name
    for separator in separators:
        value, has_separator, rest = rest.partition(separator)
        if not has_separator:
            raise InputError(
                f"The class name {name!r} does not follow the rule {rule}",
                f"it has no {separator!r}",
                "Draft a taxonomy and edit it: --draft-taxonomy map.yaml",
            )
        values.append(value)
    values.append(rest)
    labels = {key: value.strip() for key, value in zip(targets, values, strict=True) if value.strip()}
    return _ordered(with_health(labels))


def _guess(names: list[str]) -> Taxonomy:
    if not names:
        return Taxonomy({}, "no class names")
    if all("___" in name for name in names):
        return Taxonomy({name: _by_pattern(name, "category___disease") for name in names}, "category___disease")
    parsed = {name: _split_words(name) for name in names}
    # A crop in only some names ("bean_rust" beside "healthy") stays in the disease: splitting it off would leave
    # the other photos without a category.
    if all(crop for crop, _ in parsed.values()):
        meaning = {name: _with_crop(crop, rest) for name, (crop, rest) in parsed.items()}
        return Taxonomy(meaning, "the plant's name, then the disease's")
    words = {word.group().lower() for name in names for word in _WORD.finditer(name)}
    if words & (_HEALTHY_WORDS | _SYMPTOMS):
        return Taxonomy({name: _ordered(with_health({"disease": name})) for name in names}, "disease")
    return Taxonomy({name: {"category": name} for name in names}, "category")


def _with_crop(crop: str, rest: str) -> dict[str, str]:
    if not rest:
        return {"category": crop}
    return _ordered(with_health({"category": crop, "disease": rest}))


def _split_words(name: str) -> tuple[str, str]:
    """The plant's name and the rest, both as written; empty if there is no plant's name."""
    words = list(_WORD.finditer(name))
    lower = [word.group().lower() for word in words]
    start = next((i for i, word in enumerate(lower) if word in _CROPS), None)
    if start is None or any(word not in _CROP_PREFIXES for word in lower[:start]):
        return "", ""
    end = start + 1
    while end < len(lower) and lower[end] in {"bell", "sweet"}:
        end += 1
    crop = name[words[0].start() : words[end - 1].end()]
    while end < len(lower) and lower[end] in _FILLER:
        end += 1
    return crop, name[words[end].start() :].strip() if end < len(words) else ""


def _ordered(labels: Labels) -> dict[str, str]:
    first = [name for name in ("category", "health", "disease") if name in labels]
    return {name: labels[name] for name in (*first, *(key for key in labels if key not in first))}
