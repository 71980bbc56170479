"""Validation: the score of the artefact in service, by the very code that detection runs."""

from plantml.callable_package import callable_package

callable_package(__name__)
