"""Migrations give the tables of the models, once, however many servers start."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from plantml.errors import InputError
from plantml.serve import migrations
from plantml.serve.database import Base, Database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/serve.db"
    return request.getfixturevalue("postgres_url")


def test_the_tables_are_those_of_the_models(url) -> None:
    Database(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        if engine.dialect.name == "sqlite":
            users = connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'users'"))
            assert "AUTOINCREMENT" in users
        for table in Base.metadata.tables.values():
            rules = [key["options"].get("ondelete") for key in inspect(connection).get_foreign_keys(table.name)]
            assert rules == [key.ondelete for key in table.foreign_keys]
    engine.dispose()


def test_head_is_the_last_file() -> None:
    config = Config()
    config.set_main_option("script_location", "plantml.serve:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_servers_that_start_at_once_share_one_key(url) -> None:
    def start(_):
        database = Database(url)
        key = database.token_key()
        database.close()
        return key

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1


def test_a_database_of_a_newer_version_is_left_alone(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/serve.db"
    database = Database(url)
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(InputError, match="newer version"):
        Database(url)
