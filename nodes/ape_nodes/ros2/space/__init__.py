"""The third dimension: depth that comes in messages, and results in space that go out.

depth             depth images, point clouds and calibrations, paired with images
compressed_depth  depth images as compressed_depth_image_transport sends them
depth_topics      their topics, polled by the `ros2` source
tf                the tree of coordinate frames; tf_reader: its topics, polled
results           boxes, points and markers of results with depth
"""
