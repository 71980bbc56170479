"""The description of the API: complete, and without another host."""

import re

import jsonschema
import pytest

from plantml.serve.page.documentation import FOLDER
from plantml.serve.web.examples import EXAMPLES

METHODS = {"get", "put", "post", "delete", "patch"}
ANOTHER_HOST = re.compile(r"""(?:src|href|action|url\()\s*=?\s*["']?(?:https?:)?//""", re.IGNORECASE)


@pytest.fixture
def document(client):
    """The OpenAPI document of a server with all its routes."""
    return client.get("/openapi.json").json()


def operations(document):
    """Path, method and description of all operations."""
    return [
        (path, method, route)
        for path, methods in document["paths"].items()
        for method, route in methods.items()
        if method in METHODS
    ]


def test_the_api_page_and_its_files_come_from_this_server(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    files = re.findall(r"""(?:src|href)="([^"]+)\"""", page.text)
    assert len([file for file in files if file.startswith("static/")]) == 3
    for file in files:
        if not file.startswith("data:"):
            assert client.get(f"/{file}").status_code == 200, file
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert client.get("/redoc").status_code == 404


def test_pages_and_scripts_name_no_other_host():
    files = [file for file in FOLDER.rglob("*") if file.suffix in {".html", ".jinja", ".css", ".js"}]
    assert len(files) > 2
    for file in files:
        if "vendor" not in file.parts:  # those have links in texts; that they fetch nothing is tested in a browser
            assert not ANOTHER_HOST.findall(file.read_text()), file


def test_every_vendored_package_has_its_licence_and_is_listed():
    listed = (FOLDER / "static" / "vendor" / "README.md").read_text()
    for package in (FOLDER / "static" / "vendor").iterdir():
        if package.is_dir():
            assert f"`{package.name}/`" in listed
            assert list(package.glob("LICENSE*")), package


def test_every_tag_is_described(document):
    described = {tag["name"]: tag["description"] for tag in document["tags"]}
    used = {tag for _, _, route in operations(document) for tag in route["tags"]}
    assert used == set(described)
    assert all(text.endswith(".") for text in described.values())


def test_operations_have_names_of_their_own(document):
    names = [route["operationId"] for _, _, route in operations(document)]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "__" in name]


def test_every_form_of_an_answer_has_an_example(document):
    schemas = document["components"]["schemas"]

    def has_example(schema):
        """Its own, or one of each part that it consists of."""
        if "examples" in schema or "const" in schema or "enum" in schema or "default" in schema:
            return True
        if "$ref" in schema:
            return has_example(schemas[schema["$ref"].rpartition("/")[2]])
        if "properties" in schema:
            return all(has_example(each) for each in schema["properties"].values())
        if schema.get("type") == "array":
            return has_example(schema["items"])
        if choices := schema.get("anyOf"):
            return any(has_example(each) for each in choices if each.get("type") != "null")
        return (
            schema.get("type") in {"boolean", "integer", "number"} or "format" in schema or "contentMediaType" in schema
        )

    bare = [name for name, schema in schemas.items() if not has_example(schema)]
    assert bare == []


def test_examples_fit_their_forms(document):
    schemas = document["components"]["schemas"]
    assert not set(EXAMPLES) - set(schemas)
    for name, example in EXAMPLES.items():
        root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(root).validate(example)
