"""Files of annotations that are torn, absurd or hostile: an import ends with a documented code, whatever they hold."""

import copy
import json
import shutil
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plantml.data import exporting

EXAMPLES = 8
DEEP = 20_000
PHOTOS = ("a.jpg", "b.jpg")

# --- what goes wrong --------------------------------------------------------------------------

HUGE = 10**400
STRANGE = st.sampled_from(
    [None, True, -1, 0.5, 10**30, HUGE, float("inf"), float("nan"), 1e308, [], {}, [[]], [None], {"a": 1}, ["a", "a"],
     "", " ", "\0", "a\0b", "\ud800", "a\nb", "\x1b[2J", "\ufeffx", "\uffff", "1e400", "inf", "nan", "a.jpg", "b.jpg",
     ".", "..", "../../x.jpg", "http://[x", "a::b", "no://such", "~nobody/x.jpg", "x" * 300, "é" * 150, "<&'\"|,;",
     "{deep}", "---", "&a [*a]", "train", "disease"]
)  # fmt: skip


def paths(content, path=()):
    """The paths of all values in plain data."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(found for key, value in inside for found in paths(value, (*path, key)))]


def changed(content, path, value):
    """Plain data with another value in one place; `...` takes it away."""
    if not path:
        return content if value is ... else value
    content = copy.deepcopy(content)
    around = content
    for key in path[:-1]:
        around = around[key]
    if value is ...:
        del around[path[-1]]
    else:
        around[path[-1]] = value
    return content


@st.composite
def mutated(draw, content):
    """Plain data that is strange in one or two places."""
    for _ in range(draw(st.integers(1, 2))):
        content = changed(content, draw(st.sampled_from(paths(content))), draw(STRANGE | st.just(...)))
    return content


@st.composite
def torn(draw, data):
    """Bytes that are cut, written over, or in another encoding."""
    place = draw(st.integers(0, len(data)))
    how = draw(st.sampled_from(["cut", "written over", "UTF-16", "marked", "doubled"]))
    if how == "cut":
        return data[:place]
    if how == "written over":
        return data[:place] + draw(st.binary(max_size=4) | st.just(b'"')) + data[place + 2 :]
    if how == "UTF-16":
        return data.decode("utf-8", "replace").encode("utf-16")
    return b"\xef\xbb\xbf" + data if how == "marked" else data + data


def as_json(content):
    text = json.dumps(content).replace('"{deep}"', "[" * DEEP + "]" * DEEP)
    return text.encode()


def as_lines(content):
    """Values one a line, their parts apart by spaces, as YOLO writes them."""
    rows = content if isinstance(content, list) else [content]
    lines = [" ".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def as_csv(rows):
    rows = rows if isinstance(rows, list) else [rows]
    cells = [row if isinstance(row, list) else [row] for row in rows]
    return "\n".join(",".join(map(str, row)) for row in cells).encode("utf-8", "surrogatepass")


def as_xml(content, name="annotation"):
    """Plain data as elements, not escaped: what makes no XML is strange, too."""
    if isinstance(content, list):
        return "".join(as_xml(each, name) for each in content)
    inside, attributes = content, ""
    if isinstance(content, dict):
        attributes = "".join(f' {key[1:]}="{value}"' for key, value in content.items() if key[:1] == "@")
        inside = "".join(as_xml(value, key) if key else str(value) for key, value in content.items() if key[:1] != "@")
    return f"<{name}{attributes}>{inside}</{name}>".replace("{deep}", "<a>" * DEEP + "</a>" * DEEP)


def as_xml_file(content, name="annotation"):
    return as_xml(content, name).encode("utf-8", "surrogatepass")


# --- valid sets -------------------------------------------------------------------------------

COCO = {
    "images": [{"id": n, "file_name": name, "width": 8, "height": 6} for n, name in enumerate(PHOTOS)],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [[1, 1, 4, 2, 3, 5]]},
    ],
    "categories": [{"id": 1, "name": "rust"}, {"id": 2, "name": "spot"}],
}
CHOICE = {"type": "choices", "from_name": "disease", "value": {"choices": ["rust"]}}
RECTANGLE = {"type": "rectanglelabels", "original_width": 8, "original_height": 6}
RECTANGLE["value"] = {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 3, "rectanglelabels": ["spot"]}
TASKS = [
    {"data": {"image": "/data/upload/1/a.jpg"}, "annotations": [{"result": [CHOICE, RECTANGLE]}]},
    {"data": {"image": "b.jpg"}, "annotations": [{"result": [CHOICE]}]},
]
VOC = {
    "filename": "a.jpg",
    "size": {"width": 8, "height": 6},
    "object": [{"name": "rust", "bndbox": {"xmin": 1, "ymin": 1, "xmax": 4, "ymax": 4}}, {"name": "spot"}],
}
CVAT = {
    "version": 1.1,
    "meta": {"task": {"labels": {"label": {"name": "bean", "attributes": {"attribute": {
        "name": "severity", "input_type": "number"}}}}}},
    "image": [
        {"@name": "a.jpg", "@width": 8, "@height": 6, "@subset": "train", "box": {
            "@label": "bean", "@xtl": 1, "@ytl": 1, "@xbr": 4, "@ybr": 4, "@rotation": 30,
            "attribute": {"@name": "severity", "": 0.5}}, "tag": {"@label": "rust"}},
        {"@name": "b.jpg", "polygon": {"@label": "bean", "@points": "1,1;2,3"},
         "ellipse": {"@cx": 1, "@cy": 1, "@rx": 1, "@ry": 1}, "mask": {"@left": 1, "@top": 1, "@width": 1,
         "@height": 1}},
    ],
}  # fmt: skip
ROWS = [["image", "label", "split", "group", "severity"], ["a.jpg", "rust", "train", "p", 0.5],
        ["b.jpg", "none", "val", "q", 1]]  # fmt: skip
RECORDS = [{"image": "a.jpg", "label": "rust", "split": "train", "signs": ["x", "y"], "severity": 0.5},
           {"image": "b.jpg", "label": "none", "split": "val", "signs": [], "severity": 1.5}]  # fmt: skip
METADATA = [{"file_name": "a.jpg", "label": "rust", "objects": {"bbox": [[1, 1, 2, 2]], "categories": ["x"]}},
            {"file_name": "b.jpg", "label": "none", "objects": {"bbox": [], "categories": []}}]  # fmt: skip
BOX = {"x": 1, "y": 1, "w": 2, "h": 2, "labels": '{"disease":"rust"}'}
SIDECAR = {
    "plantml_sidecar": 1,
    "format": "table",
    "targets": [{"name": "disease", "kind": "class", "classes": ["none", "rust"], "unit": ""}],
    "classes": {"rust": {"disease": "rust"}},
    "images": {"a.jpg": {"labels": {"disease": "rust"}, "split": "val", "group": "p", "boxes": [BOX]}},
}
YAML = {"names": {0: "rust", 1: "spot"}, "train": "images", "val": ["images"], "path": "."}
LABELS = [[0, 0.5, 0.5, 0.5, 0.5], [1, 0.1, 0.1, 0.2, 0.1, 0.3, 0.4]]


def lines(records):
    records = records if isinstance(records, list) else [records]
    return b"\n".join(as_json(record) for record in records)


def texts(strategy, write):
    """Files of a mutated content, some of them torn."""
    data = strategy.map(write)
    return data | data.flatmap(torn)


SETS = {
    "coco": (texts(mutated(COCO), as_json), {}, "x.json", ""),
    "coco in a folder": (texts(mutated(COCO), as_json), {}, "x.json", None),
    "label-studio": (texts(mutated(TASKS), as_json), {}, "x.json", ""),
    "voc": (texts(mutated(VOC), as_xml_file), {}, "a.xml", None),
    "cvat": (texts(mutated(CVAT), lambda content: as_xml_file(content, "annotations")), {}, "a.xml", ""),
    "csv": (texts(mutated(ROWS), as_csv), {}, "x.csv", ""),
    "jsonl": (texts(mutated(RECORDS), lines), {}, "x.jsonl", ""),
    "hf": (texts(mutated(METADATA), lines), {}, "metadata.jsonl", None),
    "yolo's description": (texts(mutated(YAML), as_json), {"a.txt": as_lines(LABELS)}, "data.yaml", None),
    "yolo's names": (texts(mutated(["rust", "spot"]), as_lines), {"a.txt": as_lines(LABELS)}, "classes.txt", None),
    "yolo's labels": (texts(mutated(LABELS), as_lines), {"classes.txt": b"rust\nspot\n"}, "a.txt", None),
    "sidecar": (texts(mutated(SIDECAR), as_json), {"x.csv": as_csv(ROWS)}, "plantml.json", None),
}  # fmt: skip
"""By name: what the file may hold, other files, the file's name, and what is imported: the file or the folder."""


@pytest.fixture(scope="session")
def pictures(photo):
    return {name: photo(8, 6, seed=seed) for seed, name in enumerate(PHOTOS)}


@pytest.fixture
def outcomes(tmp_path, pictures, cli):
    """`outcomes(files, source, formats)`: an import of the files, and exports of it, as the command line ends them."""

    def run(files, source, formats):
        folder = tmp_path / uuid.uuid4().hex
        for name, data in {**pictures, **files}.items():
            (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "set" / name).write_bytes(data)
        results = [cli("dataset", "import", folder / "set" / source, folder / "dataset")]
        for name in formats if results[0].code == 0 else ():
            out = folder / "out" / (f"{name}.zip" if name == exporting.BUNDLE else name)
            results.append(cli("dataset", "export", folder / "dataset", out, "--format", name))
        shutil.rmtree(folder)
        return results

    return run


@pytest.mark.parametrize("name", SETS)
def test_neither_import_nor_export_ends_with_a_bug(name, outcomes):
    contents, others, file, source = SETS[name]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(contents, st.sampled_from(exporting.NAMES))
    def run(data, format_):
        results = outcomes({**others, file: data}, file if source is not None else "", [format_])
        # 6: a list may name a photo on a storage that is not there.
        assert [each.err for each in results if each.code not in {0, 3, 6}] == []

    run()


def test_what_comes_in_goes_out_in_every_format(outcomes):
    odd = "<&'\"|,;: é " + "x" * 300
    content = changed(COCO, ("categories", 0, "name"), odd)
    content = changed(content, ("annotations", 0, "bbox"), [-5, 1e-300, 9e8, 0])
    results = outcomes({"x.json": as_json(content)}, "x.json", exporting.NAMES)
    assert [each.err for each in results if each.code] == []
