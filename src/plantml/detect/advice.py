"""`--advice`: the grower's own text for what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.model.contract import Contract
from plantml.parsing import parse_yaml

_EXAMPLE = "Write target: {label: text}, as in configs/advice.yaml."


@dataclass(frozen=True)
class Advice:
    """Texts by target and label.

    Attributes:
        texts: by target, by label.
        decisions: texts for the decisions `review` and `unknown`: whose labels are not sure enough for the others.
        idle: `target: label` of the file that the model does not know.
    """

    texts: Mapping[str, Mapping[str, str]]
    decisions: Mapping[str, str] = field(default_factory=dict)
    idle: Sequence[str] = ()

    def of(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The texts for one record, by target; under `decision` the one for an answer that is not accepted."""
        if record["failure"] is not None:
            return {}
        if record["decision"] != "accept":
            text = self.decisions.get(record["decision"])
            return {"decision": text} if text else {}
        found = {}
        for target, answer in record["targets"].items():
            labels = [answer["label"]] if "label" in answer else [label for label, _ in answer.get("labels", ())]
            texts = [self.texts.get(target, {}).get(label, "") for label in labels]
            if any(texts):
                found[target] = "\n".join(text for text in texts if text)
        return found


def read(url: str, contract: Contract) -> Advice:
    """The texts of a YAML file, for a model.

    Raises:
        InputError: it is no such file, or none of its labels is the model's.
    """
    content = parse_yaml(storage.read(url), url, hint=_EXAMPLE)
    if not isinstance(content, dict) or not all(_is_texts(part) for part in content.values()):
        raise InputError(f"{url} holds no advice", "it is no mapping of targets to labels to texts", _EXAMPLE)
    decisions = content.pop("decision", {})
    if odd := sorted(set(decisions) - {"review", "unknown"}):
        raise InputError(f"{url} has advice for the decision {odd[0]!r}", "it is review or unknown")
    known = {target.name: set(target.classes) for target in contract.targets}
    idle = [
        f"{name}: {label}" for name, texts in content.items() for label in texts if label not in known.get(name, ())
    ]
    if len(idle) == sum(map(len, content.values())) and not decisions:
        raise InputError(
            f"{url} has no advice for this model",
            f"it knows {', '.join(f'{name}: {label}' for name, labels in known.items() for label in sorted(labels))}",
            _EXAMPLE,
        )
    return Advice(content, decisions, idle)


def check_free(names: Sequence[str]) -> None:
    """Raise `UsageError` where a target's name leaves no room for the text of a decision."""
    if "decision" in names:
        raise UsageError("--advice cannot be used with this model", "it has a target that is called decision")


def _is_texts(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(each, str) for pair in part.items() for each in pair)
