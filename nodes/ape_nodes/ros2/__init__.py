"""ROS 2, with or without an installation: topics, bags and a lifecycle node.

topics, parameters   every topic and parameter as data; docs: writes them into docs/ros2.md
messages, images     ROS messages to frames; encoder, publisher: results to ROS messages
types                message definitions without ROS; vision_msgs.msg: those that rosbags lacks
source, sink         the `ros2` source and sink; diagnostics: the values of /diagnostics
bag, mcap            the `bag` source and sink, and recordings that were cut off
backend              the interface of both ways to the graph:
dds/, commands       Cyclone DDS from pip, without ROS; `ape-stream bench dds`
rclpy_node/          rclpy: the lifecycle node `ape_node`, and the same source and sink
"""
