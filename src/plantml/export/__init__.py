"""Exports of a trained network to other formats, each verified before it is written."""

from plantml.callable_package import callable_package

callable_package(__name__)
