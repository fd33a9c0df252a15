"""Plugins are found by name, refused by name, and a broken one breaks nothing else."""

import sys

import pytest

from ape_stream import plugins
from ape_stream.errors import ConfigError, PluginError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution with good and bad trackers."""
    (tmp_path / "fakeplug.py").write_text(
        "class Tracker:\n"
        "    def __init__(self, *, speed: float = 1.0, name: 'str | None' = None, n: int = 3):\n"
        "        if speed < 0:\n"
        "            raise ValueError(f'speed is {speed}, less than 0')\n"
        "        self.speed = speed\n"
        "def anything(**options):\n"
        "    return options\n"
        "def source(spec, *, name, stream: int = 0):\n"
        "    return spec, name, stream\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "needs_zmq.py").write_text(
        "raise ModuleNotFoundError('No module named zmq', name='zmq')\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    info = tmp_path / "fakeplug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fakeplug\nVersion: 1.0\n"
        "Requires-Dist: numpy>=2\n"
        "Requires-Dist: numpy>=2; extra == 'here'\n"
        "Requires-Dist: nobodys-package>=3; extra == 'late'\n"
        "Requires-Dist: nobodys-package>=3; extra == 'dds'\n"
    )
    (info / "entry_points.txt").write_text(
        "[ape_stream.trackers]\n"
        "fake = fakeplug:Tracker\n"
        "any = fakeplug:anything [here]\n"
        "late = fakeplug:anything [late]\n"
        "more = needs_more:X [extra]\n"
        "wants_zmq = needs_zmq:X\n"
        "broken = broken:X\n"
        "missing = fakeplug:Absent\n"
        "topics = fakeplug:anything [dds]\n"
        "[ape_stream.sources]\n"
        "fake = fakeplug:source\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for module in ("fakeplug", "needs_more", "needs_zmq", "broken"):
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("package")
class TestWithPackage:
    def test_options_are_the_factorys_keyword_arguments(self):
        assert plugins.make("trackers", "fake", options={"speed": 2}).speed == 2

    def test_positional_arguments_come_before_options(self):
        made = plugins.make("sources", "fake", "fake://x", options={"name": "a", "stream": 1})
        assert made == ("fake://x", "a", 1)

    def test_a_factory_may_take_anything(self):
        assert plugins.make("trackers", "any", options={"x": [1]}) == {"x": [1]}

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"sped": 1}, "unknown option 'sped' of tracker 'fake'; it has: speed, name, n"),
            ({"speed": "fast"}, "option 'speed' of tracker 'fake' must be a number, got 'fast'"),
            ({"n": True}, "option 'n' of tracker 'fake' must be a whole number, got True"),
            ({"name": 3}, "option 'name' of tracker 'fake' must be a text, got 3"),
            ({"speed": -1.0}, "tracker 'fake': speed is -1.0, less than 0"),
        ],
    )
    def test_a_wrong_option_is_one_line_that_helps(self, options, says):
        with pytest.raises(ConfigError) as caught:
            plugins.make("trackers", "fake", options=options)
        assert str(caught.value) == says

    def test_a_missing_option_is_named(self):
        with pytest.raises(ConfigError, match="source 'fake' needs option 'name'"):
            plugins.make("sources", "fake", "x", options={})

    def test_an_unknown_name_lists_what_there_is(self):
        with pytest.raises(PluginError, match=r"no tracker is called 'sort'; there are: .*fake"):
            plugins.load("trackers", "sort")

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("more", "needs a_module_that_nobody_has: pip install 'fakeplug\\[extra\\]'"),
            ("wants_zmq", "needs zmq: pip install 'ape-stream\\[zmq\\]'"),
            ("broken", r"tracker 'broken' \(broken:X\) is broken: division by zero"),
            ("missing", "is broken: module 'fakeplug' has no attribute 'Absent'"),
        ],
    )
    def test_what_does_not_import_says_why_and_what_to_do(self, name, says):
        with pytest.raises(PluginError, match=says):
            plugins.load("trackers", name)

    def test_a_survey_reports_the_broken_and_goes_on(self):
        found = {plugin.name: plugin for plugin in plugins.survey("trackers")}
        assert found["fake"].problem is None
        assert found["fake"].package == "fakeplug"
        assert "division by zero" in found["broken"].problem
        assert list(found) == sorted(found)

    def test_a_survey_names_the_extra_of_what_imports_its_library_late(self):
        found = {plugin.name: plugin for plugin in plugins.survey("trackers")}
        assert found["any"].problem is None
        assert found["late"].problem == (
            "tracker 'late' needs nobodys-package: pip install 'fakeplug[late]'"
        )

    def test_a_sourced_ros_2_stands_in_for_the_extra_of_topics(self, monkeypatch):
        for there, problem in ((False, True), (True, False)):
            monkeypatch.setattr(plugins, "find_spec", lambda _name, there=there: there or None)
            found = {plugin.name: plugin for plugin in plugins.survey("trackers")}
            assert (found["topics"].problem is not None) is problem

    def test_finding_names_imports_nothing(self):
        assert {"fake", "broken"} <= set(plugins.names("trackers"))
        assert "broken" not in sys.modules


def test_option_names_leave_out_what_the_convention_passes():
    def factory(spec, *, name, stream=0, **_rest):
        return spec, name, stream

    assert plugins.option_names(factory, positional=1) == ("name", "stream")


@pytest.mark.parametrize(
    ("model", "plugin", "options"),
    [
        ("nano", None, {"model": "nano"}),
        ("ape:nano", "ape", {"model": "nano"}),
        ("owlv2:google/owlv2-base", "owlv2", {"model": "google/owlv2-base"}),
        ("owlv2:", "owlv2", {}),
        ("truth", "truth", {}),
        ("detector:my_package.models:make", "detector", {"model": "my_package.models:make"}),
        (r"C:\models\D", None, {"model": r"C:\models\D"}),
        ("here:it-is", None, {"model": "here:it-is"}),
    ],
)
def test_the_name_of_a_model_may_name_its_perceiver(model, plugin, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here:it-is").mkdir()
    assert plugins.perceiver_of(model) == (plugin, options)


def test_a_perceiver_that_nobody_has_is_refused_by_name():
    with pytest.raises(PluginError, match="no perceiver is called 'owlet'; there are: ape"):
        plugins.make_model("owlet:x", {})
