"""The lifecycle node over rclpy; needs a ROS 2 installation or its wheels.

main               the executable `ape_node`; process: arguments, executor, shutdown
node, image_input, outputs, detect  ApeNode
backend            topics through rclpy, also for the `ros2` source and sink
receiver           receives images in a thread of its own
take, cdr          images as bytes through rcl, without Python's lock
shared_memory      more of it for Fast DDS, by the profile `fast_dds.xml`
benchmark          `ape-stream bench node`
build_vision_msgs  compiles vision_msgs, and the services of `../interfaces`, for the wheels
"""
