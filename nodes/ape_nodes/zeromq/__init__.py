"""Results and frames over ZeroMQ, and control of a running pipeline (needs the extra `zmq`).

endpoint    "pub+bind:tcp://127.0.0.1:5557" as socket kind, direction and address
socket      opens a guarded socket; keys: CURVE key pairs
sender      sockets that send; receiver: sockets that receive; reliable: resending between the two
sink        the `zmq` sink and FrameSender; source: the `zmq` source; subscriber: subscribe()
control     asks and changes a running pipeline
commands    `ape-stream serve`, `keys`; benchmark: `ape-stream bench wire`
"""
