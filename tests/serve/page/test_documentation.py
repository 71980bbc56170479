"""The API's description in a real browser, under the Content Security Policy."""

import pytest
from tests.serve.page.conftest import complaints, listening_service, resize


@pytest.mark.slow
def test_the_api_is_described_and_can_be_tried_under_the_security_policy(chromium, registry, tmp_path) -> None:
    with listening_service(registry, state=str(tmp_path / "state")) as (_, address):
        resize(chromium, 1200)
        chromium.get(f"{address}/docs")
        chromium.find_element("css selector", ".opblock-tag")
        assert len(chromium.find_elements("css selector", ".opblock")) > 10
        chromium.find_element("css selector", "button.authorize").click()
        assert "/v1/token" in chromium.find_element("css selector", ".auth-container").text
        blocked = [text for text in complaints(chromium) if "Security Policy" in text or "ERR_" in text]
        assert blocked == []
