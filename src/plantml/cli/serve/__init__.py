"""`plantml serve`, `plantml serve prune`, and the commands of `plantml serve users`."""

from plantml.cli.serve import prune, serve, users

COMMANDS = (serve.serve, prune.prune, users.add_group)
