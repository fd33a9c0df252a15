"""From stored predictions to figures and files of other tools; no model is needed.

store    predictions of a folder, checked against the annotations of this machine
score    figures of a task, of a group, of a folder
match    which detections are right, and what is missed
worst    the images with the most errors
page     those images as a page
export   result files of LVIS, COCO and D3
"""
