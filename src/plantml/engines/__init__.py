"""Engines: where the parts of a job run. `local:N` processes here, Ray tasks, a SLURM job array, a Kubernetes Job.

A job's photos are cut into parts. Any machine can do a part, any number of times: what it finishes are segments
(`storage.segments`) in the place where the command itself looks for finished work. When all parts are done, the command
goes on as if it were resumed, so its output is that of one machine. Engines start parts and tell of them; they keep
nothing that matters.
"""
