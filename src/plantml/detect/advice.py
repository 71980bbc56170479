"""`--advice`: the grower's own texts for predicted labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.model.contract import Contract
from plantml.model.records import labels_of
from plantml.parsing import parse_yaml

_EXAMPLE = "Write target: {label: text}, as in configs/advice.yaml."


@dataclass(frozen=True)
class Advice:
    """Texts by target and label.

    Attributes:
        texts: by target, by label.
        decisions: texts for the decisions `review` and `unknown`, whose labels get none.
        unused: `target: label` in the file that the model does not know.
    """

    texts: Mapping[str, Mapping[str, str]]
    decisions: Mapping[str, str] = field(default_factory=dict)
    unused: Sequence[str] = ()

    def of(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The texts for one record, by target; under `decision` the one for a prediction that is not accepted."""
        if record["failure"] is not None:
            return {}
        if record["decision"] != "accept":
            text = self.decisions.get(record["decision"])
            return {"decision": text} if text else {}
        advice = {}
        for target, prediction in record["targets"].items():
            texts = [self.texts.get(target, {}).get(name, "") for name, _ in labels_of(prediction)]
            if any(texts):
                advice[target] = "\n".join(text for text in texts if text)
        return advice


def read(url: str, contract: Contract) -> Advice:
    """Read the texts of a YAML file for a model.

    Raises:
        InputError: the file is malformed, or the model knows none of its labels.
    """
    content = parse_yaml(storage.read(url), url, hint=_EXAMPLE)
    if not isinstance(content, dict) or not all(_is_texts(part) for part in content.values()):
        raise InputError(f"{url} is not an advice file", "it does not map targets to labels to texts", _EXAMPLE)
    decisions = content.pop("decision", {})
    if others := sorted(set(decisions) - {"review", "unknown"}):
        raise InputError(
            f"{url} has advice for the decision {others[0]!r}",
            "only review and unknown can have it",
            "Remove it from the file.",
        )
    known = {target.name: set(target.classes) for target in contract.targets}
    unused = [
        f"{name}: {label}" for name, texts in content.items() for label in texts if label not in known.get(name, ())
    ]
    if len(unused) == sum(map(len, content.values())) and not decisions:
        labels = [f"{name}: {label}" for name, classes in known.items() for label in sorted(classes)]
        raise InputError(
            f"{url} has no advice for this model",
            f"the model knows {', '.join(labels)}",
            _EXAMPLE,
        )
    return Advice(content, decisions, unused)


def check_free(names: Sequence[str]) -> None:
    """Raise `UsageError` if a target is called `decision`, which the advice for decisions needs."""
    if "decision" in names:
        raise UsageError(
            "--advice cannot be used with this model",
            "one of its targets is called decision",
            "Leave --advice out, or train with another name for that target.",
        )


def _is_texts(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(each, str) for pair in part.items() for each in pair)
