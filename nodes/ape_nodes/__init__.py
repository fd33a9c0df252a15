"""Exits over ZeroMQ and ROS 2."""
