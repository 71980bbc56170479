"""What a server tells of its datasets: by role, and only of photos that are theirs."""

import pytest
from tests.serve.conftest import sign_in

from plantml.data import versions
from plantml.errors import UsageError


def test_counts_by_class_and_split_of_the_targets_that_a_role_allows(site):
    boss, sorter = sign_in(site, "boss", "admin"), sign_in(site, "sorter", "category")
    assert site.get("/v1/datasets", headers=sorter).json() == [{"name": "leaves", "version": 2}]
    detail = site.get("/v1/datasets/leaves", headers=boss).json()
    assert (detail["version"], detail["versions"], detail["photos"], detail["excluded"]) == (2, [1, 2], 6, 0)
    assert [target["name"] for target in detail["targets"]] == ["category", "health", "disease"]
    category = detail["targets"][0]
    assert category["classes"] == [
        {"name": "bean", "photos": {"none": 2}}, {"name": "tomato", "photos": {"none": 2}},
    ]  # fmt: skip
    assert category["unlabelled"] == 2
    narrow = site.get("/v1/datasets/leaves", headers=sorter)
    assert [target["name"] for target in narrow.json()["targets"]] == ["category"]
    assert "rust" not in narrow.text
    assert "health" not in narrow.text


def test_a_photo_comes_as_it_is_or_small_and_is_kept_by_the_browser(site, leaves):
    headers = sign_in(site, "sorter", "category")
    row = versions.load(leaves).rows.row(0, named=True)
    url = f"/v1/datasets/leaves/photos/{row['image_id']}"
    whole = site.get(url, headers=headers)
    assert len(whole.content) == row["bytes"]
    assert whole.headers["content-type"] == "image/jpeg"
    assert whole.headers["cache-control"].startswith("private")
    small = site.get(f"{url}?size=32", headers=headers)
    assert len(small.content) < len(whole.content)
    again = site.get(url, headers={**headers, "If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert whole.headers["etag"] != small.headers["etag"]


def test_only_photos_of_the_dataset_and_only_with_a_role(site, leaves):
    headers = sign_in(site, "sorter", "category")
    url = "/v1/datasets/leaves/photos"
    assert site.get(f"{url}/{'0' * 64}", headers=headers).status_code == 404
    for wrong in ("x", "..%2f..%2fserve.db", f"{'0' * 63}g"):
        assert site.get(f"{url}/{wrong}", headers=headers).status_code in {404, 422}
    assert site.get(f"/v1/datasets/other/photos/{'0' * 64}", headers=headers).status_code == 404
    assert site.get("/v1/datasets/leaves@1", headers=headers).status_code == 404
    nobody = sign_in(site, "nobody")
    image_id = versions.load(leaves).rows["image_id"][0]
    assert site.get(f"{url}/{image_id}", headers=nobody).status_code == 403
    assert site.get(f"{url}/{image_id}").status_code == 401


def test_a_dataset_that_is_yet_to_be_takes_its_first_photos(start, tmp_path, photo):
    url = str(tmp_path / "young")
    with start(dataset=(url,)) as site:
        headers = sign_in(site, "boss", "admin")
        assert site.get("/v1/datasets/young", headers=headers).json()["version"] == 0
        files = [("files", ("x.jpg", photo(seed=1), "image/jpeg"))]
        data = {"labels": '{"category": "bean"}', "new_class": "true"}
        sent = site.post("/v1/datasets/young/photos", files=files, data=data, headers=headers)
        assert sent.status_code == 202, sent.text
        ids = [each["id"] for each in sent.json()["photos"]]
        accepted = site.post("/v1/contributions/accept", json={"ids": ids}, headers=headers)
        assert accepted.json()[0]["version"] == 1
        assert versions.load(url).target("category").classes == ("bean",)


def test_two_datasets_of_one_name_are_wrong_usage(start, tmp_path):
    with (
        pytest.raises(UsageError, match="Two datasets are called leaves"),
        start(dataset=(str(tmp_path / "leaves"), str(tmp_path / "b" / "leaves"))),
    ):
        pass
