"""`plantml serve`, and the commands of `plantml serve users`."""

from plantml.cli.serve import serve, users

COMMANDS = (serve.serve, users.add_group)
