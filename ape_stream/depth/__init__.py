"""Masks to three dimensions: boxes and points of what was found, from a depth image.

lift       lift: a box in metres for each instance
cloud      cloud: the masked points, with colour, class, instance and score
register   registered, from_points: depth of another camera, or points of a lidar
benchmark  `ape-stream bench lift`
surface    which depth values belong to an object; box: boxes around points

All are pure functions of `Instances` and `Depth` (`Camera`, `Transform`): no ROS.
"""

from ape_stream.depth.box import Box3D
from ape_stream.depth.cloud import Cloud, cloud
from ape_stream.depth.lift import lift
from ape_stream.depth.register import from_points, registered
from ape_stream.values.camera import Camera
from ape_stream.values.depth import Depth
from ape_stream.values.transform import Transform, quaternion

__all__ = [
    "Box3D",
    "Camera",
    "Cloud",
    "Depth",
    "Transform",
    "cloud",
    "from_points",
    "lift",
    "quaternion",
    "registered",
]
