"""`plantml export RUN --form int8`: add forms to a bundle, each after it was verified on real photos."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.errors import InputError
from plantml.export.config import ExportConfig
from plantml.export.export import Bench, Compared, RefusedError
from plantml.export.forms import FORMS_IN_BUNDLES, Source
from plantml.model import bundle as bundles
from plantml.model import proven_forms
from plantml.model.bundle import CLASSIFIER, MODEL_JSON, Bundle
from plantml.model.proven_forms import ProvenForm
from plantml.registry import ledger, references
from plantml.settings import Machine


def add(
    ref: str, names: Sequence[str], config: ExportConfig, *, machine: Machine, progress: Progress = silent
) -> Sequence[Compared]:
    """Add forms to a bundle; one that it has already is replaced.

    Args:
        ref: a bundle, or its run.
        names: of `FORMS_IN_BUNDLES`.
        config: photos to compare on, and the tolerated drop of the score, of each stage.
        machine: cache for what is remote, and the number of concurrent callers when speed is measured.
        progress: called with (photos read or forms tried, total).

    Returns:
        The comparison of the network; of two stages, of the detector's and of the classifier's.

    Raises:
        RefusedError: a form costs too much; nothing was written.
        InputError: the bundle is a version of a registry or a pack.
        MissingExtraError: a form's runtime is not installed.
    """
    cache = machine.cache()
    bundle = references.find(ref, cache)
    _check_can_change(bundle)
    added = _added(bundle, names, config, machine, progress)
    forms, files, comparisons = added.forms, added.files, [added.comparison]
    if bundle.contract.task == "tray":
        second = _added(bundle.classifier(cache), names, config, machine, progress)
        forms = {name: replace(form, classifier=second.forms[name]) for name, form in forms.items()}
        files = {**files, **{CLASSIFIER + name: data for name, data in second.files.items()}}
        comparisons.append(second.comparison)
    text = bundles.with_forms(bundle, forms, files)
    storage.publish(bundle.url, {**files, MODEL_JSON: text}, last=MODEL_JSON)
    return comparisons


def add_missing(
    ref: str, names: Sequence[str], config: ExportConfig, *, machine: Machine, progress: Progress = silent
) -> None:
    """Add those of the forms that a bundle does not have. See `add`."""
    proven_forms.check_names(names)
    known = references.find(ref, machine.cache()).forms
    if missing := [name for name in names if name not in known]:
        add(ref, missing, config, machine=machine, progress=progress)


def check_has(ref: str, names: Sequence[str]) -> None:
    """Raise `InputError` if a version of a registry lacks one of the forms."""
    lacking = [name for name in names if name not in references.find(ref).forms]
    if lacking:
        raise InputError(
            f"{ref} has no form {' and '.join(lacking)}",
            "this model was added before its forms were, and a version never changes",
            "To add it anew: plantml models remove, then plantml models add.",
        )


@dataclass(frozen=True)
class _Added:
    """Forms of one network that passed, with their files by name."""

    forms: Mapping[str, ProvenForm]
    files: Mapping[str, bytes]
    comparison: Compared


def _added(bundle: Bundle, names: Sequence[str], config: ExportConfig, machine: Machine, progress: Progress) -> _Added:
    """Forms of a network, or of the first one of two. Raises `RefusedError` for the first that costs too much."""
    bench = Bench(Source(bundle, config, machine.cache(), progress))
    candidates = [bench.judge(name, FORMS_IN_BUNDLES[name]) for name in names]
    compared = bench.compared(candidates, machine.threads)
    for each in candidates:
        if each.refused:
            raise RefusedError(
                f"{each.name} was not added to {bundle.place}",
                each.refused,
                "Nothing was written. Raise --max-drop, or compare on other photos: --data DATASET.",
                compared,
            )
    forms: dict[str, ProvenForm] = {}
    files: dict[str, bytes] = {}
    for each, row in zip(candidates, compared.rows[1:], strict=True):
        proof = json.loads(json.dumps(bench.proof_of(row)))
        if file := proven_forms.FILES[each.name]:
            files[file] = bench.sealed(each, row)[0]
            forms[each.name] = ProvenForm(each.name, each.model, bundle.digest, proof)
        else:
            forms[each.name] = proven_forms.without_file(each.name, bundle.digest, proof)
    return _Added(forms, files, compared)


def _check_can_change(bundle: Bundle) -> None:
    is_version = bundle.ref or ledger.is_model(storage.split(bundle.url)[0])
    if is_version or "::" in bundle.url:
        kind = "a version of a registry" if is_version else "in one file"
        raise InputError(
            f"{bundle.place} cannot get forms",
            f"it is {kind}, which never changes",
            "Add them to its run or bundle: plantml export RUN --form int8; then plantml models add.",
        )
