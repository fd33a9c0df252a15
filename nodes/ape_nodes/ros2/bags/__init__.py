"""rosbag2 folders and MCAP files, without ROS (rosbags).

source     BagSource: the images of a bag, with depth where asked for
sink       BagSink: results into a bag; copy: topics of another bag
mcap       recordings that were cut off
"""
