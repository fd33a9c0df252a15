"""How the files of each format look.

coco                  COCO instances
"""
