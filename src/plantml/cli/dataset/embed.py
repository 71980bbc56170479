"""`plantml dataset embed` and `similar`: photos as vectors."""

from typing import Annotated

import typer

from plantml.cli.arguments import Dataset, Embedding
from plantml.cli.console import Console, Page, count
from plantml.errors import UsageError

EMBED_EXAMPLES = [
    "plantml dataset embed leaves",
    "plantml dataset embed leaves --pca 0.95 --out vectors.parquet",
    "plantml dataset embed leaves --map map.png --color disease",
]


def embed(
    console: Console,
    dataset: Dataset,
    model: Embedding = None,
    pca: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Keep the components that explain this share of the variance.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write image ids and vectors as Parquet.")] = None,
    map_: Annotated[
        str | None, typer.Option("--map", metavar="FILE", help="Draw the set as a map: every photo a point, as PNG.")
    ] = None,
    color: Annotated[str | None, typer.Option(metavar="TARGET", help="What colours the map's points.")] = None,
) -> None:
    """Compute embeddings, once a photo and model, and keep them beside the versions."""
    import io

    import polars as pl

    from plantml import storage
    from plantml.curate import embedding_map, similar

    if color and not map_:
        raise UsageError("--color colours a map", "", "Draw one: --map map.png")
    progress = console.progress("embedding")
    found = similar.embed(dataset, console.machine, model=model, pca=pca, progress=progress)
    if out:
        buffer = io.BytesIO()
        pl.DataFrame({"image_id": list(found.ids), "embedding": found.vectors}).write_parquet(buffer)
        storage.write(out, buffer.getvalue())
    if map_:
        storage.write(map_, embedding_map.draw(found, color))
    photos, components = found.vectors.shape
    content = {
        "dataset": found.version.ref,
        "photos": photos,
        "components": components,
        "explained": round(found.explained, 6),
        "model": found.model,
        "digest": found.digest,
        "out": out,
        "map": map_,
    }

    def show(page: Page) -> None:
        page.line(f"{found.version.ref}: {count(photos, 'photo')}, {count(components, 'component')} by {found.model}")
        if pca is not None:
            page.line(f"They explain {found.explained:.1%} of the variance.")
        for file in (out, map_):
            if file:
                page.line(f"Wrote {file}")
        left = found.version.usable()["image_id"].n_unique() - photos
        if left:
            page.line(f"Left out: {count(left, 'photo')} that are gone or changed; plantml dataset verify {dataset}")
        page.next(f"plantml dataset similar PHOTO {dataset}")

    console.result("dataset embed", content, show)


SIMILAR_EXAMPLES = [
    "plantml dataset similar photo.jpg leaves",
    "plantml dataset similar photo.jpg leaves --model runs/first --count 30 --sheet alike.png",
]


def similar(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="URL of a photo.")],
    dataset: Dataset,
    model: Embedding = None,
    number: Annotated[int, typer.Option("--count", min=1, help="Photos at most.")] = 10,
    sheet: Annotated[str | None, typer.Option(metavar="FILE", help="Draw them, the photo first, as PNG.")] = None,
) -> None:
    """Find the photos of a dataset that are most like a photo."""
    from plantml import storage
    from plantml.curate import similar as library

    progress = console.progress("embedding")
    version, found = library.similar(image, dataset, console.machine, model=model, count=number, progress=progress)
    if sheet:
        storage.write(sheet, library.draw(image, version, found))
    content = {
        "image": image,
        "dataset": version.ref,
        "similar": [{"name": alike.name, "cosine": round(alike.cosine, 4), "labels": alike.labels} for alike in found],
    }
    rows = [
        [alike.name, f"{alike.cosine:.3f}", ", ".join(f"{key} {value}" for key, value in alike.labels.items())]
        for alike in found
    ]
    console.result("dataset similar", content, lambda page: page.table(("photo", "cosine", "labels"), rows))
