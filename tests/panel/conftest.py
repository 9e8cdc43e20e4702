"""Results of the held-out check are kept in a cache of the test's own."""

import pytest


@pytest.fixture(autouse=True)
def own_overlap_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
