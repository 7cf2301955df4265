"""What holds for the whole suite: it leaves nothing behind."""

import os
import tempfile

import pytest
from hypothesis import settings
from scripts.harness import children

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("suite", settings(), deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory):
    """Give the session a temporary directory of its own; check that all is gone at its end."""
    directory = tmp_path_factory.mktemp("t")
    processes = children()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(directory))
        patch.setattr(tempfile, "tempdir", None)
        yield
    assert children() == processes
    assert os.listdir(directory) == []
