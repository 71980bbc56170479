"""`plantml export`: write a bundle in another format, after verifying it on real photos."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.errors import GateError, InputError, MissingExtraError, UsageError
from plantml.export import latency, proof, samples
from plantml.export.config import ExportConfig
from plantml.export.forms import FORMS, FORMS_IN_BUNDLES, Files, Form, Made, Source
from plantml.export.latency import Speed
from plantml.export.proof import Proof
from plantml.model import bundle as bundles
from plantml.model.runtimes import FILES, PROOF_KEY, OnnxRuntime, Outputs, Runtime, TorchRuntime
from plantml.registry import references
from plantml.settings import Machine

PROOF_FORMAT = 1
AS_IT_IS = "bundle"
"""Name of the baseline row: the bundle's own ONNX file."""


@dataclass(frozen=True)
class Row:
    """One form in the comparison.

    Attributes:
        name: of `FORMS`, or `AS_IT_IS`.
        model: digest.
        size: of its files, bytes.
        proof: how far it agrees with the network; `None` of the bundle itself.
        speed: by batch size; empty if it was not measured.
        settings: how it was made.
        refused: why verification failed; empty if it passed.
    """

    name: str
    model: str
    size: int
    proof: Proof | None
    speed: Mapping[int, Speed]
    settings: Mapping[str, Any]
    refused: str = ""


@dataclass(frozen=True)
class Compared:
    """The result of an export, or of a comparison of forms.

    Attributes:
        rows: the bundle itself, then the forms.
        photos: where the compared photos came from.
        threads: concurrent callers when rates were measured.
        url: of the file that was written; empty if none was.
        missing: by form, why it could not be exported here.
    """

    rows: Sequence[Row]
    photos: str
    threads: int
    url: str = ""
    missing: Mapping[str, str] | None = None


class RefusedError(GateError):
    """A form did not pass. `comparison` has the numbers."""

    def __init__(self, what: str, why: str = "", hint: str = "", comparison: Compared | None = None) -> None:
        super().__init__(what, why, hint)
        self.comparison = comparison


def export(
    ref: str,
    to: str | None,
    config: ExportConfig,
    *,
    form: str | None = None,
    machine: Machine,
    progress: Progress = silent,
) -> Compared:
    """Write a bundle in another format, after verifying that its predictions match the network's.

    Args:
        ref: the bundle, or its run.
        to: URL of the file, or of a folder for it; `None` compares all forms and writes none.
        config: the settings.
        form: of `FORMS`; by the file's extension if not given.
        machine: cache for what is remote, and the number of concurrent callers when speed is measured.
        progress: called with (photos read or forms tried, total).

    Raises:
        RefusedError: the predictions differ, or the score drops too far; nothing was written.
        InputError: there are no photos to compare, or `to` lies in a bundle.
    """
    name = form_of(to, form) if to is not None else ""
    cache = machine.cache()
    bench = Bench(Source(references.find(ref, cache), config, cache, progress))
    if to is None:
        return _benchmark(bench, machine.threads)
    to = target_url(to, name)
    storage.check_output(to)
    if bench.source.bundle.contract.task == "tray":
        raise InputError(
            f"{bench.source.bundle.place} is two networks, and a file of format {name} holds one",
            "a detector, and a classifier of crops",
            "For one file: plantml models pack. Or export both of the run: RUN/detector and RUN/classifier.",
        )
    candidate = bench.judge(name, FORMS[name])
    compared = bench.compared([candidate], machine.threads)
    if candidate.refused:
        raise RefusedError(
            f"The {name} export of {bench.source.bundle.url} failed verification",
            candidate.refused,
            f"Nothing was written. {candidate.hint}",
            compared,
        )
    files = bench.sealed(candidate, compared.rows[-1])
    folder, file = storage.split(to)
    names = [storage.basename(url) for url in candidate.form.kind.urls(to)]
    storage.publish(folder, dict(zip(names, files, strict=True)), last=file)
    written = replace(compared.rows[-1], size=sum(len(part) for part in files))
    return replace(compared, url=to, rows=[*compared.rows[:-1], written])


def _benchmark(bench: "Bench", threads: int) -> Compared:
    candidates, missing = [], {}
    for name, form in {**FORMS, "bfloat16": FORMS_IN_BUNDLES["bfloat16"]}.items():
        try:
            candidates.append(bench.judge(name, form))
        except (MissingExtraError, InputError, UsageError) as error:  # not installed, no photos, no such processor
            missing[name] = f"{error} {error.hint}".strip()
    return replace(bench.compared(candidates, threads), missing=missing)


def form_of(to: str, form: str | None) -> str:
    """The name of the form to write. Raises `UsageError` if URL and form do not match."""
    if form is not None and form not in FORMS:
        raise UsageError(f"Unknown export format {form!r}", "", f"Formats: {', '.join(FORMS)}.")
    extension = _extension(storage.absolute(to))
    if not extension:
        return form or next(iter(FORMS))
    if form is None:
        for name, candidate in FORMS.items():
            if candidate.extension == extension:
                return name
        raise UsageError(f"Unknown export format {extension!r}", "", f"Formats: {', '.join(FORMS)}.")
    if FORMS[form].extension != extension:
        raise UsageError(
            f"{form} cannot be written to a {extension} file", "", f"Name a {FORMS[form].extension} file, or a folder."
        )
    return form


def target_url(to: str, form: str) -> str:
    """The URL of the file to write."""
    to = storage.absolute(to)
    return to if _extension(to) else storage.join(to, FORMS[form].file)


def _extension(to: str) -> str:
    """Of a file's URL; an empty string if it is a folder's."""
    extension = storage.suffix(to)
    if extension and extension not in FILES and storage.is_dir(to):
        return ""
    return extension


@dataclass(frozen=True)
class Candidate:
    """A form that was exported and compared."""

    name: str
    form: Form
    made: Made
    model: str
    runtime: Runtime | None
    proof: Proof | None
    refused: str = ""

    @property
    def hint(self) -> str:
        """What to do about a form that is refused."""
        if not self.form.exact:
            return "Raise --max-drop, or calibrate on other photos: --data DATASET."
        return (self.proof or Proof(0, 0.0, 0.0, np.inf)).cause


class Bench:
    """Exports and compares forms of one model, all on the same photos."""

    def __init__(self, source: Source) -> None:
        self.source, config = source, source.config
        bundle, version = source.bundle, samples.version_of(source.bundle, config.data)
        self._sample = samples.held_out(
            version, bundle.contract, config.split, config.samples, cache=source.cache, progress=source.progress
        )
        self._expected = self._outputs(TorchRuntime(bundle, cache=source.cache))
        self._served = OnnxRuntime(source.read(bundles.ONNX))

    def _outputs(self, runtime: Runtime) -> Outputs:
        return proof.outputs(runtime, self._sample.batches(), self._sample.columns)

    def judge(self, name: str, form: Form) -> Candidate:
        """Make a form and compare it."""
        made = form.make(self.source)
        try:
            opened, running = form.open(made.files)
        except InputError as error:
            return Candidate(name, form, made, "", None, None, str(error))
        try:
            equality = proof.compare(
                self.source.bundle.contract,
                self._expected,
                self._outputs(running),
                served=None if form.exact else opened.contract,
                labels=self._sample.labels,
                groups=self._sample.groups,
                boxes=self._sample.boxes,
            )
        except GateError as error:
            return Candidate(name, form, made, opened.digest, running, None, str(error))
        refused = equality.unequal if form.exact else equality.costs_too_much(self.source.config.max_drop)
        return Candidate(name, form, made, opened.digest, running, equality, refused)

    def compared(self, candidates: Sequence[Candidate], threads: int) -> Compared:
        """The candidates as rows, with the speed of those that passed."""
        as_it_is = self.source.read(bundles.ONNX)
        sides: dict[str, Runtime] = {AS_IT_IS: self._served}
        side_of: dict[str, str] = {}
        for each in candidates:
            if each.runtime and not each.refused:
                # The bundle's own file needs no second turn: its difference from itself would be chance.
                is_same = each.form.exact and list(each.made.files) == [as_it_is]
                side_of[each.name] = AS_IT_IS if is_same else each.name
                sides.setdefault(side_of[each.name], each.runtime)
        speeds = latency.measure(sides, self._sample.pixels, threads) if side_of else {}
        rows = [Row(AS_IT_IS, self.source.bundle.digest, len(as_it_is), None, speeds.get(AS_IT_IS, {}), {})]
        for each in candidates:
            size = sum(len(part) for part in each.made.files)
            measured = speeds[side_of[each.name]] if each.name in side_of else {}
            rows.append(Row(each.name, each.model, size, each.proof, measured, each.made.settings, each.refused))
        return Compared(rows, self._sample.where, threads)

    def proof_of(self, row: Row) -> dict[str, Any]:
        """What a form says of its comparison, as JSON types."""
        content = {"plantml_proof": PROOF_FORMAT, **row_json(row), "compared_on": self._sample.where}
        content.pop("bytes")  # the proof itself makes the file a little larger
        return content

    def sealed(self, candidate: Candidate, row: Row) -> Files:
        """The files with the proof inside; their predictions must not change.

        Raises:
            GateError: they do not.
        """
        notes = {PROOF_KEY: json.dumps(self.proof_of(row), sort_keys=True)}
        files = candidate.form.annotate(candidate.made.files, notes)
        _, running = candidate.form.open(files)
        batch = next(iter(self._sample.batches()))
        assert candidate.runtime is not None
        before, after = candidate.runtime.run(batch), running.run(batch)
        if not all(np.array_equal(before[name], after[name]) for name in before):
            raise GateError("Writing the proof into the file changed its predictions", "", "Please report it.")
        return files


def row_json(row: Row) -> dict[str, Any]:
    """A row as JSON types."""
    content: dict[str, Any] = {"format": row.name, "model": row.model, "bytes": row.size}
    proof = row.proof
    if proof is not None:
        content |= {
            "photos": proof.photos,
            "agreement": proof.agreement,
            "decisions": proof.decisions,
            "noise": proof.noise if np.isfinite(proof.noise) else None,
            "difference": proof.difference if np.isfinite(proof.difference) else None,
        }
        if proof.change is not None:
            content["score"] = asdict(proof.change) | {"change": proof.change.change}
    content["speed"] = {
        str(batch): {
            "latency_ms": round(one.latency, 3),
            "images_per_s": round(one.rate, 1),
            "ratio": round(one.ratio, 3),
        }
        for batch, one in row.speed.items()
    }
    if row.settings:
        content["settings"] = dict(row.settings)
    if row.refused:
        content["refused"] = row.refused
    return content


def as_json(comparison: Compared) -> dict[str, Any]:
    """The result as JSON types. Of one export the form's own numbers stand at the top."""
    content: dict[str, Any] = {"compared_on": comparison.photos, "threads": comparison.threads}
    if comparison.missing is None:
        content |= {"url": comparison.url or None, **row_json(comparison.rows[-1])}
    else:
        content["missing"] = dict(comparison.missing)
    return content | {"rows": [row_json(row) for row in comparison.rows]}
