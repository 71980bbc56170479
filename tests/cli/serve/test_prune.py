"""`plantml serve prune`: what its flags say is too old goes."""

import contextlib
import time

from plantml.serve.database import Database
from plantml.serve.users import audit
from plantml.serve.users.caller import COMMAND_LINE


def test_the_command_prunes_what_its_flags_say(cli, tmp_path) -> None:
    state = str(tmp_path / "state")
    with contextlib.closing(Database(f"sqlite:///{state}/serve.db")) as database:
        audit.note(database, COMMAND_LINE, "old")
    assert cli("serve", "prune", "--state", state, "--json").json["audit"] == 0
    time.sleep(1.1)
    assert "1 entry of the audit log" in cli("serve", "prune", "--state", state, "--keep-audit", "1s").out
    missing = cli("serve", "prune", "--state", str(tmp_path / "no"))
    assert (missing.code, "There is no server" in missing.err) == (3, True)
