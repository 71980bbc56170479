"""A scatter plot of a dataset's embeddings, coloured by a target. Needs scikit-learn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plantml.curate import nearest_neighbours
from plantml.curate.similar import Embedded
from plantml.errors import InputError, MissingExtraError
from plantml.reporting import charts

Floats = NDArray[np.float32]

_MOST = 20_000
"""Points on a map at most. More would be illegible and take hours."""

_COLOURS = 20


def layout(vectors: Floats, seed: int = 0) -> Floats:
    """Lay out vectors float32 [N, D] in the plane, float32 [N, 2], by t-SNE on 50 principal components.

    See van der Maaten and Hinton 2008, "Visualizing data using t-SNE". The result is reproducible on one machine.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError("Maps need scikit-learn", str(error), extra="curate") from error
    points, _ = nearest_neighbours.principal(vectors, 1.0)
    points = points[:, :50]
    perplexity = min(30.0, max(2.0, (len(points) - 1) / 4))
    points_2d: Floats = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return points_2d


def draw(embedded: Embedded, target: str | None = None, seed: int = 0) -> bytes:
    """Draw at most 20,000 photos, sampled at random, as PNG, coloured by a target; by default the first one."""
    version, ids = embedded.version, list(embedded.ids)
    if len(ids) < 5:
        raise InputError(
            f"{version.ref} has too few photos for a map",
            f"it has {len(ids)}, and a map needs 5",
            "Add photos with plantml dataset add.",
        )
    vectors = embedded.vectors
    if len(ids) > _MOST:
        sample = np.sort(np.random.default_rng(seed).choice(len(ids), _MOST, replace=False))
        ids, vectors = [ids[place] for place in sample], vectors[sample]
    name = target or (version.targets[0].name if version.targets else None)
    labels: Sequence[object] = [None] * len(ids)
    unit = ""
    if name is not None:
        unit = version.target(name).unit
        known = dict(version.usable().select("image_id", name).iter_rows())
        labels = [known.get(image_id) for image_id in ids]
    return _picture(layout(vectors, seed), labels, f"{version.ref}: {len(ids)} photos", name or "", unit)


def _picture(points: Floats, labels: Sequence[object], title: str, name: str, unit: str) -> bytes:
    from matplotlib import colormaps

    figure = charts.canvas(10.5, 7.5)
    axes = figure.subplots()
    size = float(np.clip(16000 / len(points), 5, 60))
    if labels and all(isinstance(label, float) or label is None for label in labels) and any(labels):
        values = np.array([np.nan if label is None else label for label in labels], np.float64)
        dots = axes.scatter(points[:, 0], points[:, 1], c=values, cmap="viridis", s=size, linewidths=0)
        figure.colorbar(dots, ax=axes, label=f"{name} {unit}".strip())
    else:
        texts = np.array([_text(label) for label in labels])
        names, counts = np.unique(texts, return_counts=True)
        order = [str(names[place]) for place in np.argsort(-counts, kind="stable")]
        palette = colormaps["tab20"]
        for number, text in enumerate(order):
            # Classes beyond the palette share one grey: people cannot tell more than twenty colours apart.
            colour = palette(number) if number < _COLOURS else "#999999"
            at = texts == text
            label = charts.text(f"{text} ({at.sum()})") if number < _COLOURS else None
            axes.scatter(points[at, 0], points[at, 1], color=colour, s=size, linewidths=0, label=label, alpha=0.8)
        axes.legend(title=name, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False, markerscale=2)
    axes.set_title(charts.text(title))
    axes.set_xticks([])
    axes.set_yticks([])
    return charts.png(figure)


def _text(label: object) -> str:
    if label is None:
        return "(not labelled)"
    return " + ".join(label) if isinstance(label, list) else str(label)
