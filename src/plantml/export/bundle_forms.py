"""`plantml export RUN --form int8`: add forms to a bundle, each after it was verified on real photos."""

import json
from collections.abc import Sequence

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.errors import InputError
from plantml.export.config import ExportConfig
from plantml.export.export import Bench, Compared, RefusedError
from plantml.export.forms import FORMS_IN_BUNDLES, Source
from plantml.model import bundle as bundles
from plantml.model import proven_forms
from plantml.model.bundle import MODEL_JSON, Bundle
from plantml.model.proven_forms import ProvenForm
from plantml.registry import ledger, references
from plantml.settings import Machine


def add(
    ref: str, names: Sequence[str], config: ExportConfig, *, machine: Machine, progress: Progress = silent
) -> Compared:
    """Add forms to a bundle; one that it has already is replaced.

    Args:
        ref: a bundle, or its run.
        names: of `FORMS_IN_BUNDLES`.
        config: photos to compare on, and the tolerated drop of the score.
        machine: cache for what is remote, and the number of concurrent callers when speed is measured.
        progress: called with (photos read or forms tried, total).

    Raises:
        RefusedError: a form costs too much; nothing was written.
        InputError: the bundle is a version of a registry or a pack, or a model of two stages.
        MissingExtraError: a form's runtime is not installed.
    """
    cache = machine.cache()
    bundle = references.find(ref, cache)
    _check_can_change(bundle)
    bench = Bench(Source(bundle, config, cache, progress))
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
    text = bundles.with_forms(bundle, forms, files)
    storage.publish(bundle.url, {**files, MODEL_JSON: text}, last=MODEL_JSON)
    return compared


def _check_can_change(bundle: Bundle) -> None:
    if bundle.contract.task == "tray":
        raise InputError(
            f"{bundle.place} is two networks", "forms are added to models of one network", "Use --speed exact."
        )
    is_version = bundle.ref or ledger.is_model(storage.split(bundle.url)[0])
    if is_version or "::" in bundle.url:
        kind = "a version of a registry" if is_version else "in one file"
        raise InputError(
            f"{bundle.place} cannot get forms",
            f"it is {kind}, which never changes",
            "Add them to its run or bundle: plantml export RUN --form int8; then plantml models add.",
        )
