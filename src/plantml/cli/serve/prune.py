"""`plantml serve prune`."""

import contextlib
from dataclasses import asdict

from plantml.cli.command import command
from plantml.cli.console import Console, Page, count
from plantml.serve.config import ServeConfig
from plantml.settings import Resolved


@command(
    "plantml serve prune",
    "plantml serve prune --state s3://bucket/serve --database postgresql+psycopg://plantml@db/plantml --keep-audit 30d",
    config=ServeConfig,
    section="serve",
    only=("state", "database", "keep_history", "keep_audit", "keep_trainings", "keep_contributions"),
)
def prune(console: Console, resolved: Resolved[ServeConfig]) -> None:
    """Remove data that is older than the server's retention settings.

    Servers do this once a day; the command is safe while they run. Files that a version of a dataset or model, or the
    evidence of a promotion, refers to are kept.
    """
    from plantml.extras import need_serve

    need_serve()
    from plantml.serve import retention
    from plantml.serve.database import Database
    from plantml.serve.service import check_exists, database_url

    check_exists(resolved.value)
    with contextlib.closing(Database(database_url(resolved.value))) as database:
        pruned = retention.prune(resolved.value, database, by="command line")

    def show(page: Page) -> None:
        page.line(
            f"Removed {count(pruned.predictions, 'prediction')}, {count(pruned.audit, 'entry', 'entries')} of the audit"
            f" log, and {count(pruned.files, 'file')} ({pruned.bytes / 1e6:.1f} MB)."
        )

    console.result(asdict(pruned), show)
