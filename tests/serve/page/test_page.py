"""The page, through a test client and in a real browser."""

import re
import time

import pytest
from tests.serve.conftest import PASSWORD
from tests.serve.page.conftest import complaints, listening_service, resize, sign_in

from plantml.data import versions
from plantml.data.boxes import Box
from plantml.data.editing import relabel
from plantml.data.importers import ImportListing, Item


@pytest.fixture
def visit(client):
    """`visit(name, *roles)`: sign a new user in by the page; the client keeps the cookie."""

    def begin(name, *roles):
        client.service.accounts.add(name, PASSWORD, roles)
        answer = client.post("/sign-in", data={"name": name, "password": PASSWORD, "next": "/history"})
        assert answer.url.path == "/history", answer.text
        return client

    return begin


def token_of(page):
    return re.search(r'name="csrf_token" value="(\w+)"', page.text)[1]


def test_who_is_not_signed_in_is_sent_to_sign_in(client):
    answer = client.get("/history", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/history")
    fragment = client.post("/ask", headers={"HX-Request": "true"})
    assert fragment.headers["hx-redirect"] == "/sign-in"


def test_a_wrong_password_is_said_and_the_name_kept(client):
    answer = client.post("/sign-in", data={"name": "ada", "password": "wrong"})
    assert answer.status_code == 401
    assert "Wrong name or password." in answer.text
    assert 'value="ada"' in answer.text


@pytest.mark.parametrize("elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_after_signing_in_one_stays_here(client, elsewhere):
    client.service.accounts.add("ada", PASSWORD, [])
    answer = client.post(
        "/sign-in", data={"name": "ada", "password": PASSWORD, "next": elsewhere}, follow_redirects=False
    )
    assert answer.headers["location"] == "/"


def test_the_menu_has_what_the_roles_allow(visit):
    page = visit("sorter", "category")
    links = set(re.findall(r'<a href="(/[a-z]*)"', page.get("/").text))
    assert links.isdisjoint({"/users", "/audit", "/contribute", "/review", "/trainings"})
    assert {"/", "/history", "/models"} <= links
    assert page.get("/users").status_code == 403


def test_an_answer_shows_what_the_roles_allow(visit, photo):
    page = visit("sorter", "category")
    token = token_of(page.get("/"))
    files = [("files", ("<b>.jpg", photo(), "image/jpeg")), ("files", ("text.jpg", b"no photo", "image/jpeg"))]
    answer = page.post("/ask", files=files, headers={"X-CSRF-Token": token})
    assert answer.status_code == 200, answer.text
    assert answer.text.count("<article") == 2
    assert "&lt;b&gt;.jpg" in answer.text
    assert "This photo cannot be read." in answer.text
    assert "health" not in answer.text
    history = page.get("/history").text
    assert history.count("<tr>") == 3
    assert "health" not in history


def test_a_form_of_another_site_is_refused(visit, photo):
    page = visit("sorter", "category")
    answer = page.post("/ask", files=[("files", ("leaf.jpg", photo(), "image/jpeg"))])
    assert answer.status_code == 403


def test_an_admin_manages_users_and_keys(visit):
    page = visit("boss", "admin")
    token = {"csrf_token": token_of(page.get("/users"))}
    page.post("/users", data={**token, "name": "tom", "password": "", "roles": ["contributor", "category, health"]})
    assert page.service.accounts.find("tom").roles == ["category", "contributor", "health"]
    shown = page.post("/users/tom/keys", data={**token, "label": "line 3", "days": "90"}).text
    secret = re.search(r'class="secret"[^>]*>([\w-]+)', shown)[1]
    assert page.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()["name"] == "tom"
    assert secret not in page.get("/users/tom").text
    page.post("/users/tom/keys/1/revoke", data=token)
    assert "revoked" in page.get("/users/tom").text
    assert "key.revoke" in page.get("/audit").text
    assert page.post("/users/boss/remove", data=token).status_code == 409


def fields(page, **more):
    """A form with the token of the page."""
    return {"csrf_token": token_of(page.get("/")), **more}


@pytest.fixture
def visit_site(site):
    """As `visit`, with the dataset `leaves`."""

    def begin(name, *roles):
        site.service.accounts.add(name, PASSWORD, roles)
        site.post("/sign-in", data={"name": name, "password": PASSWORD})
        return site

    return begin


def test_an_answer_has_similar_photos_as_soon_as_those_of_the_dataset_are_known(visit_site, photo):
    page = visit_site("boss", "admin")
    token = {"X-CSRF-Token": token_of(page.get("/"))}
    for _ in range(200):
        answer = page.post("/ask", files=[("files", ("leaf.jpg", photo(), "image/jpeg"))], headers=token).text
        if "Similar photos" in answer:
            break
        time.sleep(0.02)
    pictures = re.findall(r'src="(/v1/datasets/leaves/photos/\w+\?size=\d+)"', answer)
    assert len(pictures) == 5
    assert page.get(pictures[0]).headers["content-type"] == "image/jpeg"


def test_a_correction_by_a_reviewer_is_a_version_at_once_and_by_others_waits(visit_site, photo):
    page = visit_site("ann", "contributor", "category")
    data = fields(page, dataset="leaves", **{"label.category.leaves": "tomato"})
    sent = page.post("/ask/correct", data=data, files={"file": ("leaf.jpg", photo(seed=10), "image/jpeg")})
    assert "A reviewer will look at it." in sent.text, sent.text
    assert page.service.datasets.load("leaves").number == 2
    visit_site("bob", "contributor", "reviewer", "category")
    data = fields(page, dataset="leaves", **{"label.category.leaves": "bean"})
    taken = page.post("/ask/correct", data=data, files={"file": ("other.jpg", photo(seed=11), "image/jpeg")})
    assert "The dataset leaves is now version <b>3</b>." in taken.text, taken.text
    waiting = page.get("/contributions").text
    assert waiting.count('name="ids"') == 1
    contribution = re.search(r'name="ids" value="(\w+)"', waiting)[1]
    accepted = page.post("/contributions/accept", data=fields(page, ids=contribution))
    assert "version <b>4</b>" in accepted.text


def test_many_photos_each_with_its_labels_and_what_became_of_it(visit_site, photo):
    page = visit_site("bob", "admin")
    files = [("files", (f"{seed}.jpg", photo(seed=seed), "image/jpeg")) for seed in (20, 21)]
    files.append(("files", ("text.jpg", b"no photo", "image/jpeg")))
    labels = {"label.category": "bean", "label.disease": "rust", "label.disease.1": "blight"}
    answer = page.post("/contribute", data=fields(page, dataset="leaves", **labels), files=files)
    assert answer.text.count("waiting for review") == 2, answer.text
    assert "not accepted" in answer.text
    sent = {each.name: each.labels["disease"] for each in page.service.contributions.all("leaves")}
    assert sent == {"20.jpg": "rust", "21.jpg": "blight"}
    unknown = page.post(
        "/contribute", data=fields(page, dataset="leaves", **{"label.category": "oak"}), files=files[:1]
    )
    assert "category has no class oak" in unknown.text


def test_a_review_is_a_version_and_shows_the_next_photo(visit_site):
    page = visit_site("judge", "reviewer", "category")

    def next_photo():
        for _ in range(200):
            shown = page.get("/review/next?dataset=leaves", headers={"HX-Request": "true"}).text
            if "image_id" in shown:
                return shown
            time.sleep(0.02)
        raise AssertionError(shown)

    shown = next_photo()
    assert "health" not in shown
    image_id = re.search(r'name="image_id" value="(\w+)"', shown)[1]
    data = fields(page, dataset="leaves", image_id=image_id, seen="2", **{"label.category": "tomato"})
    after = page.post("/review", data=data, headers={"HX-Request": "true"}).text
    assert "now version <b>3</b>" in after
    rows = page.service.datasets.load("leaves").rows
    assert rows.filter(rows["image_id"] == image_id)["category"].to_list() == ["tomato"]
    assert f'name="image_id" value="{image_id}"' not in after
    again = page.get(f"/review/photo?dataset=leaves&image_id={image_id}").text
    assert f'name="image_id" value="{image_id}"' in again


def test_a_training_is_asked_for_shown_and_cancelled(visit_site):
    page = visit_site("coach", "trainer")
    bad = page.post("/trainings", data=fields(page, dataset="leaves", name="leaf", budget="soon"))
    assert bad.status_code == 422
    data = fields(page, dataset="leaves", name="leaf", preset="quick", budget="20m", config="epochs: 3")
    shown = page.post("/trainings", data=data)
    assert shown.url.path == "/trainings/1", shown.text
    assert "20 min" in shown.text
    assert "waiting" in shown.text
    assert "cancelled" in page.post("/trainings/1/cancel", data=fields(page)).text
    assert page.service.jobs.get(1).request["config"] == {"epochs": 3}


def test_production_does_not_move_without_evidence(visit):
    page = visit("boss", "admin")
    refused = page.post("/models/leaf/promote", data=fields(page, version="2"))
    assert refused.status_code == 409
    assert "version 1 is in service" in page.get("/models").text
    assert page.get("/models/leaf/2").status_code == 200


def test_the_page_works_on_a_small_phone(chromium, registry, tmp_path, photo):
    (tmp_path / "leaf.jpg").write_bytes(photo())
    resize(chromium, 360)
    with listening_service(registry, state=str(tmp_path / "state")) as (service, address):
        service.accounts.add("ada", PASSWORD, ["category", "health", "disease"])
        sign_in(chromium, address, "ada")
        chromium.find_element("id", "files").send_keys(str(tmp_path / "leaf.jpg"))
        answer = chromium.find_element("css selector", "article.answer")
        assert "category" in answer.text
        assert chromium.execute_script("return document.documentElement.scrollWidth") == 360
        assert not complaints(chromium)


def test_boxes_are_drawn_on_a_photo_that_is_contributed(chromium, registry, leaves, tmp_path, photo):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.select import Select

    drawn = [Box(1, 2, 10, 10, {"category": "bean"})]
    relabel(leaves, ImportListing((Item(versions.load(leaves).rows["name"][0], "", boxes=drawn),), (), "", {}))
    (tmp_path / "leaf.jpg").write_bytes(photo(400, 300, seed=20))
    resize(chromium, 360)
    with listening_service(registry, state=str(tmp_path / "state"), dataset=(leaves,)) as (service, address):
        service.accounts.add("ada", PASSWORD, ["admin"])
        sign_in(chromium, address, "ada")

        def find(selector):
            return chromium.find_element("css selector", selector)

        chromium.get(f"{address}/contribute")
        find("#files").send_keys(str(tmp_path / "leaf.jpg"))
        find("[data-draws] summary").click()
        editor = find("svg.editor[data-started]")
        chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", editor)
        width, height = editor.size["width"], editor.size["height"]
        drag = ActionChains(chromium).move_to_element_with_offset(editor, -width // 4, -height // 4).click_and_hold()
        drag.move_by_offset(width // 2, height // 2).release().perform()
        find("rect.box").send_keys("\ue014")  # the right arrow
        Select(find(".box-list select[name='box.category']")).select_by_value("tomato")
        assert chromium.execute_script("return document.documentElement.scrollWidth") == 360
        chromium.save_screenshot(str(tmp_path / "drawn.png"))
        find("#contribute button.primary").click()
        find("#outcomes > *")
        (sent,) = service.contributions.all("leaves")
        (box,) = sent.boxes
        assert (round(box.x / 400, 1), round(box.y / 300, 1)) == (0.3, 0.2)
        assert abs(box.w / 400 - 0.5) < 0.05
        assert abs(box.h / 300 - 0.5) < 0.05
        assert box.labels == {"category": "tomato"}
        chromium.get(f"{address}/contributions")
        assert find(".tile svg.boxes rect:not(.under)").get_attribute("width") == str(box.w)
        assert chromium.execute_script("return document.documentElement.scrollWidth") == 360
        chromium.save_screenshot(str(tmp_path / "waiting.png"))
        assert not complaints(chromium)
