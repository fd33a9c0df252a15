"""From stored predictions to figures, tables, pages and files of other tools; no model is needed.

store    predictions of a folder, checked against the annotations of this machine
score    figures of a task, of a group, of a folder
compare  several folders, and published figures, next to each other
browse   a page of the worst images of a task
export   result files of LVIS, COCO and D3
"""
