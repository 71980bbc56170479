"""The page for people: HTML, style and scripts, without a build step and without another host."""
