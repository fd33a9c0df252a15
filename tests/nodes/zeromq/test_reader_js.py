"""The JavaScript reader agrees with ours, from a file and over the wire."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from wire_samples import a_result

from ape_nodes.zeromq.sink import ZmqSink
from ape_stream.wire import Envelope, encode_result

READER = Path(__file__).resolve().parents[3] / "examples/reader.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def assert_agrees(shown, result):
    assert (shown["stream"], shown["index"]) == (result.frame.stream, result.frame.index)
    assert len(shown["instances"]) == len(result.instances)
    for k, one in enumerate(shown["instances"]):
        mask = result.instances.masks[k]
        assert one["phrase"] == result.prompts[int(result.instances.prompt_ids[k])].text
        assert one["box"] == result.instances.boxes[k].tolist()
        assert one["score"] == float(result.instances.scores[k])
        assert one["track"] == k + 1
        assert (one["mask"]["x"], one["mask"]["y"]) == (mask.x, mask.y)
        assert one["mask"]["area"] == int(mask.bitmap.sum())


def test_it_reads_a_message_from_a_file(tmp_path):
    result = a_result(3, 20)
    path = tmp_path / "message"
    path.write_bytes(encode_result(result, Envelope("cam", "r", 0), image="jpeg", labels="zstd"))
    done = subprocess.run([NODE, READER, path], capture_output=True, check=True, timeout=60)
    assert_agrees(json.loads(done.stdout), result)


def test_it_subscribes_over_tcp():
    with ZmqSink("zmq:pub+bind:tcp://127.0.0.1:*", timeout_s=60) as sink:
        reader = subprocess.Popen([NODE, READER, sink.address], stdout=subprocess.PIPE, text=True)
        try:
            sink.wait_for_readers(1, 60)
            for k in range(3):
                sink.write(a_result(k))
                assert_agrees(json.loads(reader.stdout.readline()), a_result(k))
        finally:
            reader.kill()
            reader.wait()
            reader.stdout.close()


def test_it_is_short():
    assert len(READER.read_text().splitlines()) < 100
