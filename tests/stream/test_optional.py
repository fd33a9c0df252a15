import pytest

from ape_stream.errors import PluginError
from ape_stream.optional import library


def test_a_missing_library_names_the_extra_that_brings_it():
    with pytest.raises(PluginError, match=r"nowhere\.at_all is not installed.*ape-stream\[zmq\]"):
        library("nowhere.at_all", "zmq")
    assert library("json", "zmq").loads("1") == 1
