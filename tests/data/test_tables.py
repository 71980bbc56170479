import pytest

from plantml import storage
from plantml.data.formats import list_source
from plantml.data.tables import photo_rows
from plantml.errors import InputError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "url,path\nhttp://h/b.jpg,a.jpg\n"),
        ("a.tsv", "url\tPath\nhttp://h/b.jpg\ta.jpg\n"),
        ("a.jsonl", '{"url": "http://h/b.jpg", "path": "a.jpg"}\n'),
        ("a.csv", "picture\na.jpg\n"),
        ("a.csv", "url;path;share\nhttp://h/b.jpg;a.jpg;0,5\n"),
        ("a.csv", "url\tpath\tshare\nhttp://h/b.jpg\ta.jpg\t0,5\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_import_and_detection_read_the_same_column(name, text, encoding, memory_url):
    table = storage.join(memory_url, name)
    storage.write(table, text.encode(encoding))
    assert [item.name for item in list_source(table).items] == [name for name, _ in photo_rows(table)] == ["a.jpg"]


@pytest.mark.parametrize(
    ("read", "option"), [(list_source, "--image-column NAME"), (lambda url: list(photo_rows(url)), "--column NAME")]
)
def test_a_table_without_a_column_of_photos_names_the_option(read, option, memory_url):
    table = storage.join(memory_url, "a.csv")
    storage.write(table, b"a,b\n1,2\n")
    with pytest.raises(InputError) as caught:
        read(table)
    assert option in caught.value.hint
