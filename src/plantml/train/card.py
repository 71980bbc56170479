"""The model card: what the model is for, what it was made of, how good it is, and where it ends."""

from collections.abc import Sequence

import jinja2

from plantml.bundle import Contract
from plantml.metrics import Report
from plantml.train.recipe import Plan


def model_card(contract: Contract, digest: str, plan: Plan, reports: Sequence[Report]) -> str:
    """The card as Markdown with a Hugging Face header."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("plantml.train", "."),
        autoescape=False,  # noqa: S701 - Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("card.md.jinja")
    return template.render(contract=contract, digest=digest, plan=plan, reports=reports)
