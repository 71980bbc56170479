"""Migrations of the SQL database, by Alembic. A change of a table is a new file in `versions/`, and a new `HEAD`."""

from sqlalchemy import Connection, Engine, inspect, text

from plantml.errors import InputError

HEAD = "0001"
"""The newest revision: what the tables of `database` are."""
_LOCK = 0x706C616E74  # "plant", the number of an advisory lock


def upgrade(engine: Engine) -> None:
    """Bring a database to `HEAD`, in one transaction. Of servers that start at once, one does it and the others wait.

    Raises:
        InputError: the database is of a newer plantml.
    """
    with engine.connect() as connection:
        if _revision(connection) == HEAD:
            return  # without the import of Alembic
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        _run(connection)
        connection.commit()


def _run(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "plantml.serve:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise InputError(
            "The database belongs to a newer version of plantml",
            f"its revision is {_revision(connection)}, and this version knows up to {HEAD}",
            "Update plantml, or restore the database from before the update.",
        ) from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
