"""ROS 2, with or without an installation: topics, bags and a lifecycle node.

topics, parameters   every topic and parameter as data; docs: writes them into docs/ros2.md
messages, images, video  ROS messages to frames; encoder, publisher: results to ROS messages
types                message definitions without ROS; definitions.msg: those that rosbags lacks
space/               depth messages to frames with depth; results in space; annotations: Foxglove's
source, sink         the `ros2` source and sink; diagnostics, health: for /diagnostics
bags/                the `bag` source and sink
backend              the interface of both ways to the graph:
dds/                 Cyclone DDS from pip, without ROS; commands: `ape-stream bench dds` and `node`
rclpy_node/          rclpy: the lifecycle node `ape_node`, and the same source and sink
"""
