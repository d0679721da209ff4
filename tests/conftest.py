"""What every test gets: an error logged by p2pnet fails it, and in CI a skip does."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine an example may take long, and that says nothing of the code. In CI it is so
# anyway.
settings.register_profile(
    "p2pnet", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("p2pnet")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and the programs that tests start and
    # interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_logged_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """ERROR means a bug of ours; a test that provokes one clears ``caplog`` itself."""
    yield
    # By itself it holds the records of the phase that runs, and that is the teardown here.
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    errors = [record for record in (*records, *caplog.records) if record.levelno >= logging.ERROR]
    assert not errors, [record.getMessage() for record in errors]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped test where nothing may be missing, as the interop matrix does."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"in CI nothing may be skipped: {report.longrepr}"
    return report
