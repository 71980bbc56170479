"""Who may see `category` only sees nothing of other targets, in any answer of any route."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from tests.serve.conftest import PASSWORD, serving, sign_in, write_bundle
from tests.serve.test_access import ACCESS, PUBLIC

from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.registry import operations, publishing
from plantml.serve.access import COOKIE, CSRF_HEADER
from plantml.serve.users.caller import ACTS, ADMIN
from plantml.targets import Target

TARGETS = (
    Target("category", "class", ("bean", "tomato")),
    Target("vigourx", "class", ("lushx", "wiltedx")),
    Target("pestx", "class", ("nonex", "mitex", "aphidx")),
)
HIDDEN = re.compile(r"\w*(?:vigourx|lushx|wiltedx|pestx|nonex|mitex|aphidx)\w*", re.IGNORECASE)
LABELS = {"category": "tomato", "vigourx": "wiltedx", "pestx": "mitex"}


def jpeg(seed) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A client of a server with photos, contributions, reviews and a model with hidden targets everywhere."""
    folder = tmp_path_factory.mktemp("visibility")
    source = folder / "source"
    source.mkdir()
    lines = ["filename,category,vigourx,pestx,split"]
    for seed, (category, vigour, pest) in enumerate(
        [("bean", "lushx", "nonex"), ("tomato", "wiltedx", "mitex"), ("tomato", "wiltedx", "aphidx")]
    ):
        (source / f"{seed}.jpg").write_bytes(jpeg(seed))
        lines.append(f"{seed}.jpg,{category},{vigour},{pest},train")
    (source / "labels.csv").write_text("\n".join(lines) + "\n")
    dataset, registry = str(folder / "leaves"), str(folder / "models")
    table = str(source / "labels.csv")
    import_source(table, dataset, list_source(table, targets=[target.name for target in TARGETS]))
    for seed in (1, 2):
        card = b"# A card\n\nIt confuses mitex with aphidx (pestx)."
        metrics = {"category.macro_f1": 0.9, "pestx.macro_f1": 0.8, "pestx.recall[mitex]": 0.7, "macro_f1": 0.85}
        url = write_bundle(str(folder / f"bundle-{seed}"), seed, TARGETS, card=card, metrics=metrics)
        publishing.add(url, f"{registry}/leaf")
        operations.promote(f"{registry}/leaf", seed, operations.GUARDED, why="the best yet", force=True)
    advice = folder / "advice.yaml"
    advice.write_text("pestx:\n  mitex: Spray against mitex.\n  aphidx: Wash aphidx off.\n")
    with serving(registry, folder, dataset=(dataset,), advice=str(advice)) as client:
        boss = sign_in(client, "boss", ADMIN)
        files = [("files", ("leaf.jpg", jpeg(7), "image/jpeg"))]
        sent = client.post("/v1/datasets/leaves/photos", files=files, data={"labels": json.dumps(LABELS)}, headers=boss)
        assert sent.status_code == 202, sent.text
        client.image_id = versions.load(dataset).rows["image_id"][0]
        client.contribution = sent.json()["photos"][0]["id"]
        yield client


@pytest.fixture(scope="module")
def narrow(world):
    """Headers of somebody who may do everything but manage users, and see `category` only."""
    world.service.accounts.add("narrow", PASSWORD, {*ACTS, "category"} - {ADMIN})
    caller = world.service.credentials.sign_in("narrow", PASSWORD)
    cookie = world.service.credentials.begin_session(caller)
    token = world.service.credentials.csrf_token(world.service.credentials.of_cookie(cookie))
    return {"Cookie": f"{COOKIE}={cookie}", CSRF_HEADER: token}


def hidden(answer) -> list[str]:
    """What the text and the headers of an answer say of hidden targets."""
    return HIDDEN.findall(answer.text + str(answer.headers))


def path_of(world, route) -> str:
    """The path of a route, for things that exist."""
    method, path = route.split()
    path = path.replace("datasets/{name}", "datasets/leaves").replace("users/{name}", "users/narrow")
    values = dict.fromkeys(("version", "number", "key_id"), "1")
    values |= {"name": "leaf", "contribution": world.contribution, "image_id": world.image_id, "file": "roc.png"}
    path = re.sub(r"\{(.*?)\}", lambda match: values[match[1]], path)
    needs_photo = method == "GET" and "/review" in path
    return f"{path}?dataset=leaves&image_id={world.image_id}" if needs_photo else path


def test_the_check_can_fail(world) -> None:
    boss = {"Authorization": f"Bearer {world.service.accounts.add_key('boss')[1]}"}
    for path in ("/v1/datasets/leaves", "/v1/contributions", "/v2/models/leaf"):
        answer = world.get(path, headers=boss)
        assert hidden(answer), (path, answer.text)


@pytest.mark.parametrize("route", [route for route, needed in ACCESS.items() if route.startswith("GET ")])
def test_no_page_and_no_answer_tells(world, narrow, route) -> None:
    headers = {} if ACCESS[route] is PUBLIC else narrow
    answer = world.get(path_of(world, route), headers=headers, follow_redirects=False)
    assert hidden(answer) == []
    if "admin" not in (ACCESS[route] or ()) and not re.search("trainings/|plots/|card$", route):
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("options", ["", "?similar=3&advice=true", "?model=leaf@1"])
@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_no_prediction_tells(world, narrow, options, accept) -> None:
    files = [("files", (f"{seed}.jpg", jpeg(seed), "image/jpeg")) for seed in range(3)]
    answer = world.post(f"/v1/predict{options}", files=files, headers={**narrow, "Accept": accept})
    assert answer.status_code == 200, answer.text
    assert "category" in answer.text
    assert hidden(answer) == []
    assert hidden(world.get("/v1/predictions", headers=narrow)) == []


def test_no_screen_tells_after_a_question(world, narrow) -> None:
    files = [("files", ("leaf.jpg", jpeg(1), "image/jpeg"))]
    answer = world.post("/ask", files=files, headers=narrow)
    assert answer.status_code == 200, answer.text
    assert "tomato" in answer.text or "bean" in answer.text
    assert hidden(answer) == []
    assert hidden(world.get("/history", headers=narrow)) == []


def test_history_follows_the_roles(world) -> None:
    headers = sign_in(world, "changing", "category", "pestx")
    files = [("files", ("leaf.jpg", jpeg(1), "image/jpeg"))]
    assert hidden(world.post("/v1/predict", files=files, headers=headers))
    world.service.accounts.set_roles("changing", ["category"])
    answer = world.get("/v1/predictions", headers=headers)
    assert len(answer.json()) >= 1
    assert hidden(answer) == []


def test_the_open_inference_protocol_gives_no_hidden_output(world, narrow) -> None:
    assert "category" in world.get("/v2/models/leaf", headers=narrow).text
    tensor = {"name": "image", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": [0] * 192}
    answer = world.post("/v2/models/leaf/infer", json={"inputs": [tensor]}, headers=narrow)
    assert answer.status_code == 200, answer.text
    assert hidden(answer) == []
    asked = {"inputs": [tensor], "outputs": [{"name": "target.pestx"}]}
    assert world.post("/v2/models/leaf/infer", json=asked, headers=narrow).status_code in {400, 403, 404, 422}


def test_a_contribution_with_a_hidden_label_is_refused_as_unknown(world, narrow) -> None:
    files = [("files", ("leaf.jpg", jpeg(9), "image/jpeg"))]
    for labels in ({"pestx": "nothing of this"}, {"category": "pear"}):
        data = {"labels": json.dumps(labels)}
        answer = world.post("/v1/datasets/leaves/photos", files=files, data=data, headers=narrow)
        typed = set(HIDDEN.findall(data["labels"]))
        assert set(hidden(answer)) <= typed, answer.text


def test_no_failure_tells(world, narrow) -> None:
    for route in ACCESS:
        if not route.startswith("GET ") and route != "POST /sign-out":
            method, path = route.split()[0], path_of(world, route)
            answer = world.request(method, path, json={}, headers=narrow, follow_redirects=False)
            assert hidden(answer) == [], route
