"""Duplicates that hashes miss: crops, flips, rotations and overlaps, found by their keypoints.

Photos that share rare keypoints are candidates (see `visual_words`). They are verified by geometry: keypoints (Lowe
2004, "Distinctive image features from scale-invariant keypoints"; square-rooted as by Arandjelovic and Zisserman
2012, "Three things everyone should know to improve object retrieval") must agree on one similarity transform, and
under it the pixels of both must match. Two photos of one plant share keypoints, but not pixels.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from plantml import imaging
from plantml.concurrency import Progress, in_threads, silent
from plantml.curate import visual_words
from plantml.errors import MissingExtraError
from plantml.imaging import ImageError
from plantml.storage.segments import pack, unpack

Kind = Literal["flip", "turn", "crop", "resize", "overlap"]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

SIDE = 288
"""Pixels of the longer side at which photos are compared."""

KEYPOINTS = 300
INLIERS = 12
"""Minimum number of keypoints that agree on one transform."""

CORRELATION = 0.7
"""Minimum correlation of the pixels under that transform, in all but the worst tenth of the blocks.

Measured on crops, flips and turns of real photos: 99 of 100 copies reach 0.95, and all reach 0.74. Two photos of one
leaf stay below 0.68.
"""

_RATIO = 0.85
"""Ratio test: a match must be nearer than this times the second nearest (Lowe 2004, section 7.1)."""

_REACH = 3.0
"""Maximum reprojection error of an inlier, pixels."""

_BLOCK = 16
"""Side of the blocks whose pixels are correlated."""

_TURNED = 5.0
"""Degrees from which a copy counts as rotated."""

_WHOLE = 0.93
"""Share of a photo that counts as all of it."""

_SAMPLED = 100
"""Photos whose keypoints define the visual words."""

_MEMORY = 1 << 30


@dataclass(frozen=True)
class Copy:
    """Two photos that show the same pixels, wholly or in part.

    Attributes:
        first: index of one.
        second: index of the other, larger than `first`.
        kind: `flip` mirrored; `turn` rotated by `angle`; `crop` one is part of the other; `resize` both have the
            same content; `overlap` each has content that the other has not.
        inliers: keypoints that agree on the transform from `first` to `second`.
        angle: of the transform, degrees anticlockwise, -180 to 180, after mirroring left to right if `mirrored`.
        scale: of the transform: size in `second` relative to the size in `first`, both in pixels.
        mirrored: true if left and right are exchanged; a vertical flip is this and a rotation by 180 degrees.
        first_share: share of `first` that `second` contains, 0 to 1.
        second_share: share of `second` that `first` contains, 0 to 1.
        correlation: of the common pixels, -1 to 1; nine of ten blocks reach it.
    """

    first: int
    second: int
    kind: Kind
    inliers: int
    angle: float
    scale: float
    mirrored: bool
    first_share: float
    second_share: float
    correlation: float


class Elsewhere(Protocol):
    """Computes and compares keypoints on an engine."""

    def views(self, photos: Sequence[int], progress: Callable[[int], None]) -> Iterable["tuple[int, View | None]"]:
        """The keypoints of photos, in any order."""
        ...

    def copies(self, jobs: Sequence["Job"], progress: Callable[[int], None]) -> Iterable[Copy]:
        """The copies of all jobs, in any order; tells how many jobs are done."""
        ...


def find_copies(
    count: int,
    read: Callable[[int], bytes],
    *,
    known: Indices | None = None,
    top: int = 10,
    threads: int = 2,
    memory: int = _MEMORY,
    progress: Progress = silent,
    elsewhere: Elsewhere | None = None,
) -> list[Copy]:
    """Find matches among photos, sorted by (first, second).

    Args:
        count: number of photos, N.
        read: returns the bytes of photo 0 to N - 1; called from several threads. Photos that cannot be decoded
            have no matches.
        known: int64 [N], group of each photo as returned by `near_duplicates`. The photo with the lowest index
            represents its group.
        top: candidates per photo.
        threads: photos processed at the same time.
        memory: bytes of keypoints to keep; evicted keypoints are recomputed.
        progress: called with (photos and pairs done, total); the total grows once, when the pairs are known.
        elsewhere: computes and compares keypoints; by default this process does.

    Raises:
        MissingExtraError: opencv or threadpoolctl is not installed.
        StorageError: a photo's bytes cannot be read.
    """
    _opencv()
    representatives = np.arange(count) if known is None else np.unique(known, return_index=True)[1]
    representatives = np.sort(representatives)
    views = Views(read, memory)
    with one_thread_each():
        pairs = representatives[_candidates(views, representatives, threads, top, progress, elsewhere=elsewhere)]
        pairs = np.unique(np.sort(pairs, axis=1), axis=0)
        jobs, total = list(_jobs(pairs, views.capacity)), len(representatives) + len(pairs)
        done, copies = len(representatives), list[Copy]()
        if elsewhere is not None:
            copies += elsewhere.copies(jobs, lambda ended: progress(done + len(pairs) * ended // len(jobs), total))
            jobs = []
        for job, matches in zip(jobs, in_threads(lambda job: copies_of(views, *job), jobs, threads), strict=True):
            copies += matches
            done += len(job[1])
            progress(done, total)
    return sorted(copies, key=lambda copy: (copy.first, copy.second))


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Make numpy multiply matrices in the thread that asks for it, in the whole process.

    Its own threads do not make the small matrices of `copies_of` faster, only wait for each other: half of the
    processor time was theirs.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError(
            "Finding crops and rotations needs threadpoolctl", str(error), extra="curate"
        ) from error
    with threadpool_limits(1, user_api="blas"):
        yield


Job = tuple[int, Indices]
"""A photo, and those to compare it with: int64 [P], all larger."""


@dataclass(frozen=True)
class View:
    """The keypoints of a photo.

    Attributes:
        size: of the thumbnail (width, height), pixels.
        full: size of the upright photo (width, height), pixels.
        points: float32 [K, 2], x and y in the thumbnail.
        descriptors: uint8 [K, 128], roots of the L1-normalised ones, times 512.
    """

    size: tuple[int, int]
    full: tuple[int, int]
    points: Floats
    descriptors: NDArray[np.uint8]

    def encode(self) -> str:
        """One line of text."""
        return f"{json.dumps([self.size, self.full])}\t{pack(self.points, '<f4')}\t{pack(self.descriptors, 'u1')}"

    @staticmethod
    def decode(text: str) -> "View":
        """The view of `encode`."""
        sizes, points, descriptors = text.split("\t")
        (width, height), (full_width, full_height) = json.loads(sizes)
        return View(
            (width, height),
            (full_width, full_height),
            unpack(points, "<f4").reshape(-1, 2),
            unpack(descriptors, "u1").reshape(-1, 128),
        )


class Looked(Protocol):
    """Keypoints and thumbnails by photo."""

    def view(self, index: int) -> View | None:
        """The keypoints of a photo; `None` if it cannot be decoded."""
        ...

    def grey(self, index: int) -> NDArray[np.uint8]:
        """The thumbnail: uint8 [H, W]."""
        ...


class Views:
    """An LRU cache of keypoints by photo. Thread-safe."""

    def __init__(self, read: Callable[[int], bytes], memory: int) -> None:
        self._read = read
        self.capacity = max(16, memory // (KEYPOINTS * (128 + 8)))
        self._kept = functools.lru_cache(self.capacity)(lambda index: view_of(read(index)))

    def view(self, index: int) -> View | None:
        """See `Looked.view`."""
        return self._kept(index)

    def grey(self, index: int) -> NDArray[np.uint8]:
        """See `Looked.grey`."""
        return grey_of(self._read(index))


def grey_of(data: bytes) -> NDArray[np.uint8]:
    """The thumbnail of a photo that is compared: uint8 [H, W]. Raises `ImageError`."""
    return np.asarray(imaging.thumbnail(data, SIDE).convert("L"))


def view_of(data: bytes) -> View | None:
    """The keypoints of a photo; `None` if it cannot be decoded."""
    try:
        facts, grey = imaging.facts(data), grey_of(data)
    except ImageError:
        return None
    points, descriptors = _keypoints(grey)
    return View((grey.shape[1], grey.shape[0]), (facts.width, facts.height), points, descriptors)


def _keypoints(grey: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.uint8]]:
    cv2 = _opencv()
    points, descriptors = cv2.SIFT_create(nfeatures=KEYPOINTS, contrastThreshold=0.02).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), _NOTHING
    positions = np.array([point.pt for point in points[:KEYPOINTS]], np.float32)
    descriptors = descriptors[:KEYPOINTS]
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1))
    return positions, np.minimum(rooted * 512, 255).astype(np.uint8)


def _mirror() -> Indices:
    """The permutation of a descriptor's 4 x 4 x 8 values (row, column, direction) when the photo is mirrored.

    Rows run across the keypoint's orientation: their order and the sense of directions are reversed (Guo and
    Cao 2012, "MIFT: a framework for feature descriptors to be mirror reflection invariant").
    """
    places = np.arange(128).reshape(4, 4, 8)
    return places[::-1][..., -np.arange(8) % 8].ravel()


_MIRROR = _mirror()
_NOTHING = np.zeros((0, 128), np.uint8)


def _candidates(
    views: Views,
    representatives: Indices,
    threads: int,
    top: int,
    progress: Progress,
    *,
    elsewhere: Elsewhere | None,
) -> Indices:
    """Find pairs of indices into `representatives` that share words: int64 [P, 2]."""
    photos, count = representatives.tolist(), len(representatives)

    def words_of(photo: tuple[int, View | None]) -> tuple[int, visual_words.Words, visual_words.Words]:
        index, view = photo
        descriptors = _NOTHING if view is None else view.descriptors
        return index, book.words(descriptors), book.words(descriptors[:, _MIRROR])

    sampled = in_threads(views.view, photos[:: max(1, count // _SAMPLED)], threads)
    book = visual_words.Codebook(np.concatenate([_NOTHING, *(view.descriptors for view in sampled if view)]))
    if elsewhere is None:
        words = in_threads(lambda index: words_of((index, views.view(index))), photos, threads)
    else:
        words = in_threads(words_of, elsewhere.views(photos, lambda done: progress(done, count)), threads)
    place = {index: at for at, index in enumerate(photos)}
    plain: list[visual_words.Words] = [np.zeros(0, np.int32)] * count
    mirrored = plain.copy()
    for done, (index, own, turned) in enumerate(words, start=1):
        plain[place[index]], mirrored[place[index]] = own, turned
        if elsewhere is None:
            progress(done, count)
    return visual_words.nearest(plain, mirrored, top)


def _jobs(pairs: Indices, capacity: int) -> Iterator[Job]:
    """Yield a photo and those to compare it with, ordered so that few photos are in use at a time."""
    block = max(1, capacity // 3)
    first, second = pairs[:, 0], pairs[:, 1]
    order = np.lexsort((second, first, second // block, first // block))
    key = np.stack([first, second // block], axis=1)[order]
    cuts = np.flatnonzero((np.diff(key, axis=0) != 0).any(axis=1)) + 1
    for part in np.split(order, cuts):
        if len(part):
            yield int(first[part[0]]), second[part]


def copies_of(views: Looked, first: int, others: Indices) -> list[Copy]:
    """Compare a photo with others; those with common pixels. In several threads at once: `one_thread_each`."""
    one = views.view(first)
    if one is None or len(one.points) < INLIERS:
        return []
    ours = _unit(one.descriptors)
    both = np.concatenate([ours, ours[:, _MIRROR]])
    copies = []
    for second in others.tolist():
        other = views.view(second)
        if other is None or len(other.points) < INLIERS:
            continue
        similar = both @ _unit(other.descriptors).T
        for mirrored, part in ((False, similar[: len(ours)]), (True, similar[len(ours) :])):
            copy = _verified(views, (first, one), (second, other), _matches(part), mirrored=mirrored)
            if copy is not None:
                copies.append(copy)
                break
    return copies


def _unit(descriptors: NDArray[np.uint8]) -> Floats:
    vectors = descriptors.astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1))
    return vectors


def _matches(similar: Floats) -> tuple[Indices, Indices]:
    """Match keypoints that are mutual nearest neighbours and pass the ratio test, by cosines float32 [K, L]."""
    rows = np.arange(len(similar))
    best = similar.argmax(axis=1)
    nearest = similar[rows, best]
    mutual = similar.argmax(axis=0)[best] == rows
    rows, best, nearest = rows[mutual], best[mutual], nearest[mutual]
    rest = similar[rows]
    rest[np.arange(len(rows)), best] = -1
    clear = 1 - nearest < _RATIO**2 * (1 - rest.max(axis=1, initial=-1))  # squared distances are 2 - 2 cosines
    return rows[clear], best[clear]


def _verified(
    views: Looked,
    first: tuple[int, View],
    second: tuple[int, View],
    matches: tuple[Indices, Indices],
    *,
    mirrored: bool,
) -> Copy | None:
    if len(matches[0]) < INLIERS:
        return None
    (i, one), (j, other) = first, second
    source, target = one.points[matches[0]], other.points[matches[1]]
    if mirrored:
        source = source * np.array([-1, 1], np.float32) + np.array([one.size[0] - 1, 0], np.float32)
    cv2 = _opencv()
    matrix, inside = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=_REACH)
    if matrix is None:
        return None
    inliers = _distinct(source[inside.ravel() > 0])
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if inliers < INLIERS or not 0.1 < scale < 10:
        return None
    shares = _shares(one.size, other.size, matrix)
    correlation = _agreement(views.grey(i), views.grey(j), matrix, mirrored=mirrored)
    if correlation < CORRELATION:
        return None
    angle = float(-np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))  # y runs down
    full = scale * (other.full[0] / other.size[0]) / (one.full[0] / one.size[0])
    centred = _centred(one.size, other.size, matrix)
    kind = _kind(angle, shares, centred=centred, mirrored=mirrored)
    return Copy(i, j, kind, inliers, angle, full, mirrored, *shares, correlation)


def _distinct(points: Floats) -> int:
    """Count keypoints at distinct positions: one position can have several orientations."""
    return len(np.unique(np.round(points), axis=0))


def _corners(size: tuple[int, int]) -> Floats:
    width, height = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)


def _moved(points: Floats, matrix: NDArray[np.float64]) -> Floats:
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def _shares(one: tuple[int, int], other: tuple[int, int], matrix: NDArray[np.float64]) -> tuple[float, float]:
    """Return the share of each photo that the other contains."""
    moved = _moved(_corners(one), matrix)
    both, _ = _opencv().intersectConvexConvex(moved, _corners(other))
    area = one[0] * one[1] * abs(np.linalg.det(matrix[:, :2]))
    return min(1.0, float(both / area)), min(1.0, float(both / (other[0] * other[1])))


def _centred(one: tuple[int, int], other: tuple[int, int], matrix: NDArray[np.float64]) -> bool:
    """Return true if the centres coincide, up to 5 % of the diagonal."""
    middle = _moved(np.array([[one[0] / 2, one[1] / 2]], np.float32), matrix)[0]
    return bool(np.hypot(*(middle - np.array(other) / 2)) < 0.05 * np.hypot(*other))


def _kind(angle: float, shares: Sequence[float], *, centred: bool, mirrored: bool) -> Kind:
    inside = max(shares) >= _WHOLE
    if not inside and not centred:
        return "overlap"
    if mirrored:
        return "flip"
    if abs(angle) >= _TURNED:
        return "turn"
    if not inside:
        return "overlap"
    return "resize" if min(shares) >= _WHOLE else "crop"


def _agreement(
    one: NDArray[np.uint8], other: NDArray[np.uint8], matrix: NDArray[np.float64], *, mirrored: bool
) -> float:
    """Return the correlation of two grey photos that nine of ten textured blocks reach; -1 if there are too few.

    A block counts if it has texture in one of the photos: one plain wall looks like any other. The lowest tenth
    allows for date stamps and errors of the transform; another plant in front of the same wall affects more blocks.
    """
    cv2 = _opencv()
    source = np.ascontiguousarray(one[:, ::-1]) if mirrored else one
    size = other.shape[1], other.shape[0]
    ours = cv2.warpAffine(source, matrix, size, flags=cv2.INTER_LINEAR).astype(np.float32)
    covered = cv2.warpAffine(np.ones_like(source), matrix, size, flags=cv2.INTER_NEAREST) > 0
    ours, theirs = (cv2.GaussianBlur(picture, (0, 0), 1.5) for picture in (ours, other.astype(np.float32)))
    rows, columns = other.shape[0] // _BLOCK, other.shape[1] // _BLOCK

    def blocks(picture: NDArray[Any]) -> NDArray[Any]:
        cut = picture[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
        return cut.swapaxes(1, 2).reshape(rows * columns, -1)

    inside = blocks(cv2.erode(covered.astype(np.uint8), np.ones((5, 5), np.uint8))).all(axis=1)
    left, right = blocks(ours)[inside], blocks(theirs)[inside]
    left, right = (part - part.mean(axis=1, keepdims=True) for part in (left, right))
    power = np.maximum((left**2).mean(axis=1), (right**2).mean(axis=1))
    textured = power >= 9
    if textured.sum() < 4:
        return -1.0
    left, right = left[textured], right[textured]
    each = (left * right).sum(axis=1) / np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1) + 1e-6)
    return float(np.quantile(each, 0.1))


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("Finding crops and rotations needs OpenCV", str(error), extra="curate") from error
    cv2.setNumThreads(1)  # plantml runs its own threads
    return cv2
