import pytest

from ape_stream.closing import Closing


class Recorder(Closing):
    def __init__(self):
        self.closed_with = []

    def close(self, error=None):
        self.closed_with.append(error)


def test_the_with_statement_closes_with_the_error_that_ended_it():
    recorder, failure = Recorder(), ValueError("broken")
    with recorder as entered:
        assert entered is recorder
    with pytest.raises(ValueError, match="broken"), recorder:
        raise failure
    assert recorder.closed_with == [None, failure]
