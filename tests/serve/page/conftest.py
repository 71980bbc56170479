"""A server that a real browser can reach, and the browser."""

import shutil
from contextlib import contextmanager

import pytest
from tests.serve.conftest import PASSWORD, listening

from plantml import settings
from plantml.serve.app import create_app
from plantml.serve.config import ServeConfig
from plantml.serve.service import open_service

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en",
)  # fmt: skip


@contextmanager
def listening_service(registry, **changes):
    """A service that listens on a free port of this machine, and its URL."""
    service = open_service(registry, ServeConfig(**{"threads": 2, **changes}), settings.machine())
    with listening(create_app(service), lifespan="on") as url:
        yield service, url


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser, whose pages are as narrow as a small phone's."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as session:
        session.implicitly_wait(20)
        yield session


def resize(chromium, width, height=740):
    """Show pages as on a screen of so many pixels; a phone if it is narrow."""
    is_phone = width < 600
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": is_phone})


def complaints(chromium):
    """What the browser's console has to say: errors of scripts, violations of the CSP, files that are missing."""
    return [entry["message"] for entry in chromium.get_log("browser") if entry["level"] in {"WARNING", "SEVERE"}]


def sign_in(chromium, address, name):
    """Sign a user in who exists."""
    chromium.get(f"{address}/sign-in")
    chromium.find_element("name", "name").send_keys(name)
    chromium.find_element("name", "password").send_keys(PASSWORD)
    chromium.find_element("css selector", "main button.primary").click()
    chromium.find_element("css selector", "header nav")
