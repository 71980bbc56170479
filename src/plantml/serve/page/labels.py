"""Labels in forms: a field per target, named `label.TARGET`."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import FormData

from plantml.serve.users.caller import Caller
from plantml.targets import Target

FIELD = "label."


def visible(targets: Sequence[Target], caller: Caller) -> list[Target]:
    """The targets that a caller may see, and so may label."""
    return [target for target in targets if caller.may_see(target.name)]


def read(form: FormData | Mapping[str, Any], targets: Sequence[Target], suffix: str = "") -> dict[str, Any]:
    """Labels by target; an empty field is no label. What is no number is kept as it is, to be refused with a reason.

    Args:
        form: the fields `label.TARGET` and the suffix.
        targets: for which there may be fields.
        suffix: tells the fields of one photo from those of others.
    """
    texts = {target: str(form.get(f"{FIELD}{target.name}{suffix}") or "").strip() for target in targets}
    return {target.name: _parsed(target, text) for target, text in texts.items() if text}


def _parsed(target: Target, text: str) -> Any:
    if target.kind == "multilabel":
        return [label.strip() for label in text.split(",") if label.strip()]
    if target.kind == "value":
        try:
            return float(text.replace(",", "."))
        except ValueError:
            return text
    return text


def of_record(targets: Mapping[str, Mapping[str, Any]] | None) -> dict[str, str]:
    """What a record predicts, as the fields of a form show it."""
    shown = {}
    for name, answer in (targets or {}).items():
        if "labels" in answer:
            shown[name] = ", ".join(label for label, _ in answer["labels"])
        else:
            shown[name] = str(answer.get("label", answer.get("value", "")))
    return shown
