"""A pytest plugin: the fixture `httpbin` of pytest-httpbin, at another URL."""

import os
import types

import pytest


@pytest.fixture(scope="session")
def httpbin():
    return types.SimpleNamespace(url=os.environ["CONFORMANCE_URL"])


@pytest.fixture
def httpbin_secure():
    pytest.skip("is about the client's TLS, which no upstream sees")


@pytest.fixture
def httpbin_ca_bundle():
    return None
