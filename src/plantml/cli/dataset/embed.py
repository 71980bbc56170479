"""`plantml dataset embed` and `similar`: photos as vectors."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset, Embedding, Engine
from plantml.cli.command import command
from plantml.cli.console import Console, Page, count
from plantml.errors import UsageError

if TYPE_CHECKING:
    from plantml.curate.embeddings import Fill


@command(
    "plantml dataset embed leaves",
    "plantml dataset embed leaves --pca 0.95 --out vectors.parquet",
    "plantml dataset embed leaves --map map.png --color disease",
    "plantml dataset embed s3://bucket/leaves --on ray",
)
def embed(
    console: Console,
    dataset: Dataset,
    model: Embedding = None,
    pca: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Reduce to the principal components that explain this share of the variance."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write image IDs and embeddings as Parquet.")] = None,
    map_: Annotated[
        str | None, typer.Option("--map", metavar="FILE", help="Draw a 2-D map of the photos, as PNG.")
    ] = None,
    color: Annotated[str | None, typer.Option(metavar="TARGET", help="Color the map by this target.")] = None,
    on: Engine = None,
) -> None:
    """Compute embeddings, once per photo and model, and store them in the dataset."""
    import polars as pl

    from plantml import storage
    from plantml.curate import embedding_map, similar
    from plantml.data import tables

    if color and not map_:
        raise UsageError("--color needs a map", "", "Draw one: --map map.png")
    storage.check_output(out, map_)
    progress = console.progress("embedding")
    embedded = similar.embed(dataset, console.machine, model=model, pca=pca, progress=progress,
                             fill=filler(console, on, model))  # fmt: skip
    if out:
        table = pl.DataFrame({"image_id": list(embedded.ids), "embedding": embedded.vectors})
        storage.write(out, tables.to_parquet(table))
    if map_:
        storage.write(map_, embedding_map.draw(embedded, color))
    photos, components = embedded.vectors.shape
    content = {
        "dataset": embedded.version.ref,
        "photos": photos,
        "components": components,
        "explained": round(embedded.explained, 6),
        "model": embedded.model,
        "digest": embedded.digest,
        "out": out,
        "map": map_,
    }

    def show(page: Page) -> None:
        page.line(
            f"{embedded.version.ref}: {count(photos, 'photo')}, {count(components, 'component')} by {embedded.model}"
        )
        if pca is not None:
            page.line(f"They explain {embedded.explained:.1%} of the variance.")
        for file in (out, map_):
            if file:
                page.line(f"Wrote {file}")
        left = embedded.version.usable()["image_id"].n_unique() - photos
        if left:
            page.line(f"Left out: {count(left, 'photo')} that are missing or changed; plantml dataset verify {dataset}")
        page.next(f"plantml dataset similar PHOTO {dataset}")

    console.result(content, show)


def filler(console: Console, on: str | None, model: str | None) -> "Fill | None":
    """What embeds photos on the engine of `--on`, if there is one."""
    if on is None:
        return None
    from plantml.engines import embedding, opening

    return embedding.filler(opening.open_engine(on, console.machine), model, console.machine, console.listener)


@command(
    "plantml dataset similar photo.jpg leaves",
    "plantml dataset similar photo.jpg leaves --model runs/first --count 30 --sheet similar.png",
)
def similar(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="URL of a photo.")],
    dataset: Dataset,
    model: Embedding = None,
    number: Annotated[int, typer.Option("--count", min=1, help="Maximum number of photos.")] = 10,
    sheet: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the photo and the similar ones, as PNG.")
    ] = None,
) -> None:
    """Find the photos of a dataset that are most similar to a given one."""
    from plantml import storage
    from plantml.curate import similar as library

    storage.check_output(sheet)
    progress = console.progress("embedding")
    version, matches = library.similar(image, dataset, console.machine, model=model, count=number, progress=progress)
    if sheet:
        storage.write(sheet, library.draw(image, version, matches))
    content = {
        "image": image,
        "dataset": version.ref,
        "similar": [
            {"name": match.name, "cosine": round(match.cosine, 4), "labels": match.labels} for match in matches
        ],
    }
    rows = [
        [match.name, f"{match.cosine:.3f}", ", ".join(f"{key} {value}" for key, value in match.labels.items())]
        for match in matches
    ]
    console.result(content, lambda page: page.table(("photo", "cosine", "labels"), rows))
