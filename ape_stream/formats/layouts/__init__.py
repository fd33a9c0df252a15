"""How the files of each format look.

coco                  COCO instances, and the folder that FiftyOne imports
panoptic, ytvis       COCO's relatives: one segment a pixel; masks by track
cvat, labelme         CVAT's XML and LabelMe's json
labelstudio, datumaro  json of Label Studio and of Datumaro
yolo, voc             a text or XML a frame
mot                   MOT and MOTS text
label_maps, table     indexed PNGs; CSV
"""
