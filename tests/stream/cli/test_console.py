"""What the command line prints of the library's log."""

import logging

from ape_stream.cli.console import show_warnings


def test_notices_are_printed_as_they_are_and_once(capsys):
    show_warnings()
    show_warnings()
    logging.getLogger("ape_stream.notice").info("compiling x.cpp for this processor, once")
    logging.getLogger("ape_stream.sources").info("the clock stepped back")
    logging.getLogger("ape_stream.sources").warning("slow")
    said = "compiling x.cpp for this processor, once\nwarning: slow\n"
    assert capsys.readouterr().err == said
