"""Covariates of a request: as many as photos, each an object or null."""

import pytest

from plantml.serve.predict.predictions import parse_covariates
from plantml.serve.web.problems import RequestError


def test_each_photo_has_its_own_or_none():
    assert parse_covariates(None, 2) == [None, None]
    assert parse_covariates('[{"temperature": 21.5}, null]', 2) == [{"temperature": 21.5}, None]


@pytest.mark.parametrize("text", ["[", '{"temperature": 21.5}', "[1]", "[{}]", "[{}, {}, {}]", ""])
def test_what_does_not_fit_the_photos_is_refused(text):
    with pytest.raises(RequestError, match="covariates") as error:
        parse_covariates(text, 2)
    assert error.value.status == 422
