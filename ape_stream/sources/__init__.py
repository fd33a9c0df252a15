"""Where frames come from.

video      files and network streams, by FFmpeg
images     image files: one, a folder, a pattern, a list
camera     USB and V4L2 cameras
memory     arrays and PIL images; push: frames from another thread
synthetic  videos of a drawn world
media      what a string of the user stands for: the files of folders, patterns and lists
clock      StreamClock: times that rise over restarts and outages
pixels     arrays, PIL images and files to the pixels of a frame
"""
