"""rclpy_node."""
