"""A dataset in Python: what `plantml dataset` does, as methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plantml import settings, storage
from plantml.api import html
from plantml.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from plantml.curate.findings import Report
    from plantml.data.exporting import Exported
    from plantml.data.manifest import Commit, Version


class Dataset:
    """One version of a dataset. It never changes: `split` and `clean` make a new one of the newest, and return that.

    Attributes:
        version: the version, as the library's functions take it.
    """

    def __init__(self, version: "Version") -> None:
        self.version = version

    @classmethod
    def create(
        cls,
        source: str | Path,
        url: str | Path,
        *,
        format: str = "auto",  # noqa: A002 - the option is called so
        labels: str = "auto",
        taxonomy: str | Path | None = None,
        targets: str | Sequence[str] = (),
        image_column: str | None = None,
        group_column: str | None = None,
        reference: bool = False,
        allow_root: str | Iterable[str] = (),
    ) -> "Dataset":
        """Import photos and their labels, as `plantml dataset import` does. Repeated, it adds what is new.

        Args:
            source: a folder, an archive or an annotation file; a path or a URL.
            url: of the dataset, which is created if it does not exist.
            format: of the source; detected by default.
            labels: how class names are read.
            taxonomy: a file that says so instead.
            targets: columns of a table to predict: `name`, `name:kind` or `name:value:unit`.
            image_column: of a table.
            group_column: of a table.
            reference: leave the photos where they are.
            allow_root: folders and URLs outside the source from which it may name photos.

        Raises:
            InputError: there is no source, its format is unclear, or none of its photos can be used.
        """
        from plantml.data import formats, importing
        from plantml.data import labels as label_rules
        from plantml.storage.addresses import Trust

        machine = settings.machine()
        listing = formats.list_source(
            str(source),
            format=format,
            rule=labels,
            taxonomy=label_rules.load_taxonomy(str(taxonomy)) if taxonomy else None,
            targets=_several(targets),
            image_column=image_column,
            group_column=group_column,
            trust=Trust.of(_several(allow_root), offline=machine.offline),
        )
        imported = importing.import_source(str(source), str(url), listing, reference=reference, threads=machine.threads)
        if imported.listed and not imported.usable:
            raise InputError(
                f"No photo of {source} can be used", importing.reasons(imported), "Fix the source and import it again."
            )
        return cls(imported.version)

    @classmethod
    def open(cls, ref: str | Path) -> "Dataset":
        """The newest version at a URL, or the one that `URL@7` or `URL@tag` names. Raises `InputError`."""
        from plantml.data import versions

        return cls(versions.load(str(ref)))

    def __repr__(self) -> str:
        return f"<Dataset {self.ref}: {len(self)} photos>"

    def __len__(self) -> int:
        """Photos that are not excluded."""
        return self.version.usable().height

    @property
    def url(self) -> str:
        """Where the dataset is."""
        return self.version.url

    @property
    def ref(self) -> str:
        """The reference that names exactly this version."""
        return self.version.ref

    @property
    def rows(self) -> "pl.DataFrame":
        """The manifest: one row per imported photo, excluded ones too; see `docs/dataset.md`."""
        return self.version.rows

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each target, in order; none for a value."""
        return {target.name: target.classes for target in self.version.targets}

    @property
    def counts(self) -> "pl.DataFrame":
        """Photos per class: columns `target`, `class`, and one per split (`none`: not split)."""
        import polars as pl

        from plantml.data import summary

        info = summary.info(self.ref)
        splits = list(info.splits)
        rows = [
            {"target": target, "class": name, **{split: by_split.get(split, 0) for split in splits}}
            for target, of_target in info.classes.items()
            for name, by_split in of_target.items()
        ]
        return pl.DataFrame(rows, schema={"target": pl.String, "class": pl.String, **dict.fromkeys(splits, pl.Int64)})

    def versions(self) -> Mapping[int, "Commit"]:
        """How each version came about, by its number, newest first. Raises `InputError` if one is damaged."""
        from plantml.data import versions

        return dict(versions.log(self.url))

    def split(
        self,
        *,
        ratios: str = "0.7/0.15/0.15",
        groups: str | None = None,
        group_by: str | None = None,
        near: bool = True,
        deep: bool = False,
        seed: int = 0,
        keep: bool = False,
        resplit: bool = False,
    ) -> "Dataset":
        """Assign every photo to train, val or test, as `plantml dataset split` does. Arguments are its options.

        Raises:
            InputError: there is another split already and neither `keep` nor `resplit` is set; or nothing to split.
        """
        from plantml.data import splits

        by_pixels = None
        if deep:
            from plantml.concurrency import silent
            from plantml.curate import photo_groups

            by_pixels = photo_groups.finder(settings.machine(), lambda _: silent)
        committed = splits.split_dataset(
            self.url,
            ratios=ratios,
            groups=groups,
            group_by=group_by,
            near=near,
            by_pixels=by_pixels,
            seed=seed,
            keep=keep,
            resplit=resplit,
        )
        return Dataset(committed.version)

    def join(self, table: str | Path, columns: Sequence[str] = ()) -> "Dataset":
        """Join measured columns of a table to photos, as `plantml dataset join` does.

        Raises:
            InputError: the table lacks a column, a column is a target, or photos cannot be matched.
        """
        from plantml.data import covariates

        return Dataset(covariates.join(self.url, str(table), columns).version)

    def check(
        self,
        *,
        only: str | Sequence[str] = (),
        skip: str | Sequence[str] = (),
        model: str | None = None,
        folds: str | None = None,
        html: str | None = None,
    ) -> "Report":
        """Find what is wrong with this version, as `plantml dataset check` does; nothing is changed.

        Args:
            only: checks to run; all if empty.
            skip: checks to leave out.
            model: whose embeddings are used.
            folds: cross-validation of this dataset, whose models check its boxes.
            html: URL of a report to write.

        Raises:
            InputError: `html` lies in a dataset or a model.
        """
        from plantml.curate import check, report
        from plantml.curate.context import Subject

        storage.check_output(html)
        machine = settings.machine()
        findings = check.run(self.ref, machine, only=_several(only), skip=_several(skip), model=model, folds=folds)
        if html:
            storage.write(html, report.render(findings, Subject(findings.version, machine)))
        return findings

    def clean(self, apply: str, *, model: str | None = None) -> "Dataset":
        """Fix findings in a new version, as `plantml dataset clean` does; nothing is deleted.

        Args:
            apply: codes of findings, separated by commas; `error` or `warning` for all of these.
            model: whose embeddings are used.

        Raises:
            UsageError: there is no such code.
            MissingExtraError: a check that a code needs is not installed.
        """
        from plantml.curate import clean

        cleaned = clean.clean(self.url, clean.codes(apply), settings.machine(), model=model)
        return Dataset(cleaned.version)

    def where(self, condition: str) -> "pl.DataFrame":
        """Rows for which a condition holds, such as `'disease == "rust" and split == "test"'`. Raises `UsageError`."""
        from plantml.data.filters import where

        return where(self.rows, condition)

    def subset(self, out: str | Path, condition: str) -> "Dataset":
        """Make a new dataset at `out` of the rows for which a condition holds.

        Raises:
            UsageError: the condition cannot be read.
            InputError: it holds for no row, or there is a dataset at `out`.
        """
        from plantml.data import editing

        threads = 4 * settings.machine().threads
        return Dataset(editing.subset(self.ref, str(out), condition, threads=threads).version)

    def export(self, out: str | Path, *, format: str, splits: str | Sequence[str] = ()) -> "Exported":  # noqa: A002
        """Write photos and labels in another format, as `plantml dataset export` does.

        Args:
            out: URL of a new or empty directory; of a new `.zip` for a bundle.
            format: such as `folder`, `coco` or `yolo`.
            splits: only these; all rows if there are none.

        Raises:
            UsageError: there is no such format or split.
            InputError: there is nothing to write, or something at `out`.
        """
        from plantml.data.exporting import export_dataset

        return export_dataset(self.ref, str(out), format=format, splits=_several(splits))

    def _repr_html_(self) -> str:
        shown = html.table(("", ""), [("dataset", self.ref), ("photos", len(self))])
        return shown + html.frame(self.counts, 50)


def _several(names: str | Iterable[str]) -> list[str]:
    """One name, or several, as a list: text is never taken for a list of letters."""
    return [names] if isinstance(names, str) else list(names)
