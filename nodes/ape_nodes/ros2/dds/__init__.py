"""ROS 2 topics through the `cyclonedds` wheel, without ROS.

backend    a node, its writers and readers
cdr        messages to CDR bytes and back
benchmark  `ape-stream bench dds`
"""
