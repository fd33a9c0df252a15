"""What viewers are sent: each kind once, for all who want it.

images        JPEG and H.264, in a few sizes
labels        label maps and their run lengths
native        the same in C++
views         label maps: instances, the prompt of every pixel, or its segment
"""
