"""The walk of a caller: sign in, predict, and see what the roles allow."""

from tests.serve.conftest import sign_in


def test_a_photo_gets_the_targets_that_the_roles_allow(client, photo):
    everything, category = sign_in(client, "boss", "admin"), sign_in(client, "sorter", "category")
    files = [("files", ("leaf.jpg", photo(), "image/jpeg"))]
    answer = client.post("/v1/predict", files=files, headers=everything)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()["records"][0]["targets"]) == ["category", "health", "disease"]
    assert answer.json()["model"] == "leaf@1"
    narrow = client.post("/v1/predict?model=leaf@2", files=files, headers=category).json()
    assert list(narrow["records"][0]["targets"]) == ["category"]
    assert narrow["records"][0]["model"] != answer.json()["records"][0]["model"]


def test_errors_are_problem_documents(client):
    answer = client.post("/v1/predict", files=[("files", ("a.jpg", b"x", "image/jpeg"))])
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Sign in first"


def test_every_route_has_a_summary_and_its_problems(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "Problem" in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["summary"].endswith("."), (method, path)
