import posixpath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from plantml.errors import UsageError
from plantml.storage import addresses
from plantml.storage.addresses import ANYWHERE, Trust, around, is_private, refusal


def unused(host):
    raise AssertionError(f"{host} was looked up")


UNDER = [
    ("/data/a.jpg", "/data"),
    ("/data/sub/../a.jpg", "/data/"),
    ("file:///data/a.jpg", "/data"),
    ("/data/a%20b/..c.jpg", "/data"),
    ("s3://bucket/photos/a.jpg", "s3://bucket/photos"),
    ("S3://bucket/a.jpg", "s3://bucket"),
    ("s3://bucket/a.jpg", "s3://"),
    ("http://host/dir/a.jpg?size=1", "http://host/dir"),
    ("http://HOST:80/a.jpg", "http://host/"),
    ("http://127.0.0.1:8000/a.jpg", "http://127.0.0.1:8000"),
    ("zip://leaf/1.jpg::/data/set.zip", "zip://::/data/set.zip"),
    ("zip://leaf/1.jpg::/data/set.zip", "zip://leaf::/data/set.zip"),
    ("zip://leaf/1.jpg::/data/set.zip", "/data"),
    ("tar://1.jpg::s3://bucket/set.tar", "s3://bucket"),
    ("memory://a/b.jpg", "memory://a"),
    ("/anything", ANYWHERE),
    ("s3://any/thing", ANYWHERE),
]
OUTSIDE = [
    ("/etc/passwd", "/data"),
    ("/data/../etc/passwd", "/data"),
    ("/database/a.jpg", "/data"),
    ("file:///etc/passwd", "/data"),
    ("FILE:///etc/passwd", "/data"),
    ("local:///etc/passwd", "/data"),
    ("../a.jpg", "/data"),
    ("~nobody-of-that-name/a.jpg", "/"),
    ("/data/a\0.jpg", "/data"),
    ("s3://bucket/photos/../secret/a.jpg", "s3://bucket/photos"),
    ("s3://bucket2/a.jpg", "s3://bucket"),
    ("s3://bucket/a.jpg", "/data"),
    ("/data/a.jpg", "s3://bucket"),
    ("http://host/dir/%2e%2e/a.jpg", "http://host/dir"),
    ("http://host/dir/..%2fa.jpg", "http://host/dir"),
    ("http://host:81/a.jpg", "http://host"),
    ("https://host/a.jpg", "http://host"),
    ("http://host@evil/a.jpg", "http://host"),
    ("http://evil\\@host/a.jpg", "http://host"),
    ("http://host.evil/a.jpg", "http://host"),
    ("http://[host/a.jpg", "http://host"),
    ("http://host:port/a.jpg", "http://host"),
    ("zip://leaf/../stem/1.jpg::/data/set.zip", "zip://leaf::/data/set.zip"),
    ("zip://1.jpg::/data/other.zip", "zip://::/data/set.zip"),
    ("/data/set.zip", "zip://::/data/set.zip"),
    ("simplecache::file:///data/a.jpg", "/data"),
    ("simplecache://::/data/a.jpg", "/data"),
    ("dir://x::/data", "/data"),
]


@pytest.mark.parametrize(("address", "root"), UNDER)
def test_what_lies_under_a_root_is_opened(address, root):
    assert refusal(address, ["/elsewhere", root], lookup=unused) == ""
    assert Trust((root,)).refusal(address, ("/elsewhere",)) == ""
    assert Trust().refusal(address, (root,)) == ""


@pytest.mark.parametrize(("address", "root"), OUTSIDE)
def test_what_lies_elsewhere_is_not(address, root):
    assert refusal(address, [root], lookup=unused)
    assert Trust((root,)).refusal(address, (root,))


@pytest.mark.parametrize("address", [address for address, _ in OUTSIDE if "\0" not in address])
def test_the_flag_that_a_refusal_gives_allows_the_address(address):
    _, has_flag, root = refusal(address, ["/nothing-here"], lookup=unused).partition("--allow-root ")
    if has_flag:
        assert Trust.of([root]).refusal(address, ()) == "" or "simplecache" in address or "dir://" in address


SEGMENTS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "a.jpg", "%2e%2e", "c d"]), max_size=8)


@hypothesis_settings(max_examples=300)
@given(SEGMENTS, st.sampled_from(["/", "s3://bucket/", "http://host/", "zip://", "file:///"]))
def test_no_path_leads_out_of_its_root(segments, start):
    end = "::/x.zip" if start == "zip://" else ""
    path = "/".join(segments)
    seen = path.replace("%2e", ".") if start.startswith("http") else path
    is_inside = f"{posixpath.normpath('/' + seen.lstrip('/'))}/".startswith("/a/")
    if start in {"/", "file:///"}:
        path = path.lstrip("/")
    assert (refusal(f"{start}{path}{end}", [f"{start}a{end}"], lookup=unused) == "") == is_inside


@hypothesis_settings(max_examples=200)
@given(st.text(), st.booleans())
def test_any_text_is_judged(text, offline):
    for address in (text, f"http://{text}", f"zip://{text}::{text}"):
        assert isinstance(refusal(address, ["/data", ANYWHERE], offline=offline, lookup=lambda _: ()), str)


# --- hosts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.0.0.1:8000", "127.1", "0177.0.0.1", "0x7f000001",
        "2130706433", "0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "[::1]", "[::]:80", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[0:0:0:0:0:0:0:1]", "①②⑦.0.0.1", "127。0。0。1", "127%2e0.0.1", "",
    ],
)  # fmt: skip
def test_hosts_of_this_machine_and_of_private_networks_are_known_however_they_are_written(host):
    assert is_private(host, unused)


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "134744072", "8.8.8.8:8080"])
def test_public_addresses_are_not_private(host):
    assert not is_private(host, unused)


@pytest.mark.parametrize(
    ("found", "private"),
    [(["8.8.8.8"], False), ([], False), (["8.8.8.8", "10.0.0.1"], True), (["::ffff:169.254.169.254"], True)],
)
def test_a_name_is_as_private_as_what_it_leads_to(found, private):
    assert is_private("metadata.example.org", lambda _: found) is private


def test_a_private_host_needs_a_root_that_names_it():
    address = "http://169.254.169.254/latest"
    for root in (ANYWHERE, "http://"):
        assert "not a public host" in refusal(address, [root], lookup=unused)
    assert "not a public host" in refusal("http://inner/a", ["http://"], lookup=lambda _: ["10.0.0.1"])
    assert refusal("http://outer/a", ["http://"], lookup=lambda _: ["8.8.8.8"]) == ""
    assert refusal(address, ["http://169.254.169.254"], lookup=unused) == ""


def test_offline_nothing_remote_is_opened_that_no_root_names():
    for address in ("http://8.8.8.8/a.jpg", "s3://bucket/a.jpg", "zip://a.jpg::https://host/x.zip"):
        for root in (ANYWHERE, "http://", "s3://", "https://"):
            assert refusal(address, [root], offline=True, lookup=unused)
    assert refusal("s3://bucket/a.jpg", ["s3://bucket"], offline=True, lookup=unused) == ""
    assert refusal("/data/a.jpg", [ANYWHERE], offline=True, lookup=unused) == ""


def test_a_host_is_looked_up_once(monkeypatch):
    asked = []
    monkeypatch.setattr(addresses, "look_up", lambda host: asked.append(host) or ["8.8.8.8"])
    trust = Trust.of(["http://"])
    assert [trust.refusal(f"http://host/{number}.jpg", ()) for number in range(3)] == ["", "", ""]
    assert asked == ["host"]


@pytest.mark.parametrize("root", ["", "  ", "http://[", "x::y", "a\0b"])
def test_a_root_that_is_no_address_is_wrong_usage(root):
    with pytest.raises(UsageError, match="--allow-root"):
        Trust.of([root])


# --- what a source stands for -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("/data/photos", "/data/photos"),
        ("/data/labels.csv", "/data"),
        ("/data/set/annotations/train.json", "/data/set"),
        ("/data/x.json", "/data"),
        ("/data/set/annotations/annotations.xml", "/data/set"),
        ("/x.json", "/"),
        ("s3://bucket/x.json", "s3://bucket"),
        ("s3://bucket/set/x.json", "s3://bucket"),
        ("http://host/x.json", "http://host"),
        ("http://host/set/x.json", "http://host/set"),
        ("s3://bucket/labels.csv", "s3://bucket"),
        ("/data/set.zip", "zip://::/data/set.zip"),
        ("zip://labels.csv::/data/set.zip", "zip://::/data/set.zip"),
    ],
)
def test_a_list_stands_for_what_lies_around_it(source, root):
    assert around(source) == root
