"""Pascal VOC and YOLO become the same data as COCO; every mistake is one line."""

import json
import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from ape_stream.datasets.instances import DatasetError
from ape_stream.datasets.read import read_instances, splits_of

BOX = [[9.0, 4.0, 30.0, 4.0, 30.0, 25.0, 9.0, 25.0]]
"""Pixels 10 to 30 and 5 to 25 as VOC counts them, from 1 and both inside."""


def voc_xml(name="a.jpg", size="<size><width>60</width><height>40</height></size>", objects=None):
    box = "<bndbox><xmin>10</xmin><ymin>5</ymin><xmax>30</xmax><ymax>25</ymax></bndbox>"
    if objects is None:
        objects = f"<object><name>gizmo</name>{box}</object>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def draw(path, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))


@pytest.fixture
def voc(tmp_path):
    """`Annotations/a.xml` and its image; returns what writes the XML."""
    draw(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations").mkdir()

    def write(*args, stem="a", **kwargs):
        text = args[0] if args else voc_xml(**kwargs)
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(text)
        return tmp_path

    return write


@pytest.fixture
def yolo(tmp_path):
    """`images/train/a.png` with one label file; returns what writes it and `data.yaml`."""
    draw(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)

    def write(rows="1 0.325 0.3625 0.35 0.525", table="train: images/train\nnames: [thing, gizmo]"):
        (tmp_path / "labels" / "train" / "a.txt").write_text(rows)
        (tmp_path / "data.yaml").write_text(table)
        return tmp_path

    return write


def only(data):
    [image] = data.images
    return image


def test_a_voc_box_is_counted_from_one_with_both_ends_inside(voc):
    data = read_instances(voc())
    assert data.names == ("gizmo",)
    [region] = only(data).regions
    assert region.shape == BOX
    assert not region.masked


@pytest.mark.parametrize("folder", ["Annotations", "JPEGImages", "images", "."])
def test_the_image_of_an_xml_lies_in_any_usual_folder(tmp_path, folder):
    draw(tmp_path / folder / "a.jpg")
    (tmp_path / "Annotations").mkdir(exist_ok=True)
    (tmp_path / "Annotations" / "a.xml").write_text(voc_xml("C:\\shots\\other.jpg", size=""))
    assert only(read_instances(tmp_path)).path.parent == tmp_path / folder


def test_the_folder_of_images_may_be_named(voc, tmp_path):
    draw(tmp_path / "elsewhere" / "a.jpg")
    found = only(read_instances(voc(), tmp_path / "elsewhere")).path
    assert found == tmp_path / "elsewhere" / "a.jpg"


def test_difficult_objects_need_not_be_found_and_are_counted(voc):
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    names = [f"<object><name>{name}</name>{box}" for name in ("gizmo", "gizmo")]
    root = voc(objects=f"{names[0]}</object>{names[1]}<difficult>1</difficult></object>")
    data = read_instances(root)
    assert [len(only(data).regions), len(only(data).ignored)] == [1, 1]
    assert str(data.skips) == "1 difficult"


def test_an_xml_without_objects_is_an_image_of_nothing(voc, tmp_path):
    draw(tmp_path / "JPEGImages" / "b.jpg")
    voc(name="b.jpg", objects="", stem="b")
    data = read_instances(voc())
    assert [len(image.regions) for image in data.images] == [1, 0]
    assert len(data.labelled) == 1


def test_lists_of_names_are_splits(voc, tmp_path):
    draw(tmp_path / "JPEGImages" / "b.jpg")
    voc(name="b.jpg", stem="b")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for split, name in (("train", "a"), ("val", "b  1")):
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(name + "\n")
    root = voc()
    assert splits_of(root) == ("train", "val")
    assert only(read_instances(root)).path.stem == "a"
    assert only(read_instances(root, split="val")).path.stem == "b"
    with pytest.raises(DatasetError, match=r"no split 'test': it has train, val"):
        read_instances(root, split="test")


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", r"a\.xml is no XML \(it is empty\)"),
        ("<annotation>", r"a\.xml is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", r"a\.xml is no XML"),
        ("<kml/>", r"a\.xml is no Pascal VOC: it begins with <kml>"),
        (voc_xml("gone.jpg").replace("a.jpg", "gone.jpg"), None),
        (voc_xml(objects=""), "none of its 1 XML files has an object"),
        (voc_xml(size="<size><width>61</width><height>40</height></size>"), r"is 60 x 40, not 61"),
        (voc_xml(objects="<object><bndbox/></object>"), r"a\.xml: object 1 has no name"),
        (voc_xml().replace("<xmax>30</xmax>", ""), r"object 1: xmax is a number, not None"),
        (voc_xml().replace(">30<", ">wide<"), r"object 1: xmax is a number, not 'wide'"),
        (voc_xml().replace(">30<", ">5<"), "left out: 1 box without area"),
        (voc_xml().replace("gizmo", "..."), r"object 1: '...' holds no letter"),
    ],
)
def test_a_bad_xml_is_refused_in_one_line(voc, xml, message):
    if message is None:  # the name is wrong, and the image lies under that of the XML
        assert only(read_instances(voc(xml))).path.name == "a.jpg"
        return
    refused(voc(xml), message)


def refused(path, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read_instances(path)
    assert "\n" not in str(caught.value)


def test_a_missing_image_is_named(voc, tmp_path):
    root = voc()
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    refused(root, r"a\.xml: its image a\.jpg is missing")


def test_a_yolo_box_is_in_parts_of_the_image(yolo):
    data = read_instances(yolo())
    assert data.names == ("thing", "gizmo")
    [region] = only(data).regions
    assert region.class_id == 1
    assert region.shape[0] == pytest.approx(BOX[0])
    assert not region.masked


def test_a_yolo_polygon_is_a_mask(yolo):
    [region] = only(read_instances(yolo("0 .1 .1 .5 .1 .5 .5\n\n"))).regions
    assert region.masked
    assert region.shape[0] == pytest.approx([6, 4, 30, 4, 30, 20])


def test_the_path_of_a_set_may_be_the_file_or_the_folder(yolo):
    root = yolo()
    assert only(read_instances(root / "data.yaml")).size == only(read_instances(root)).size


@pytest.mark.parametrize(
    "table",
    [
        "train: ../images/train\nnames: {0: thing, 1: gizmo}",
        "path: ../datasets/mine\ntrain: images/train\nnc: 2\nnames:\n  0: thing\n  1: gizmo\n",
        "train: [images/train]\nnames: ['thing', 'gizmo']",
        "train: list.txt\nnames: ['thing', 'gizmo']",
    ],
)
def test_data_yaml_as_tools_write_it(yolo, tmp_path, table):
    (tmp_path / "list.txt").write_text("./images/train/a.png\n")
    assert read_instances(yolo(table=table)).names == ("thing", "gizmo")


def test_a_yolo_folder_without_yaml_has_classes_txt(yolo):
    root = yolo()
    (root / "data.yaml").unlink()
    refused(root, "has neither data.yaml nor classes.txt")
    (root / "classes.txt").write_text("thing\ngizmo\n")
    assert read_instances(root).names == ("thing", "gizmo")


def test_an_image_without_labels_shows_nothing_and_splits_are_apart(yolo, tmp_path):
    draw(tmp_path / "images" / "val" / "b.png")
    draw(tmp_path / "images" / "train" / "c.png")
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "b.txt").write_text("0 .5 .5 .2 .2")
    root = yolo(table="train: images/train\nval: images/val\nnames: [thing, gizmo]")
    assert [len(image.regions) for image in read_instances(root).images] == [1, 0]
    assert only(read_instances(root, split="val")).path.name == "b.png"
    assert splits_of(root) == ("train", "val")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("2 .5 .5 .1 .1", r"a\.txt:1: class 2 of 2 names: they count from 0"),
        ("0 .5 .5 .1 .1\n-1 .5 .5 .1 .1", r"a\.txt:2: a row is a class and numbers"),
        ("gizmo .5 .5 .1 .1", r"a\.txt:1: a row is a class and numbers, not 'gizmo"),
        ("0 .5 .5 .1", r"a\.txt:1: 3 numbers after the class"),
        ("0 .5 .5 .1 .1 .9", r"a\.txt:1: 5 numbers after the class"),
        ("0 .5 nan .1 .1", r"a\.txt:1: a row is a class and numbers"),
        ("0 30 20 10 10", r"a\.txt:1: coordinates are parts of the image"),
        ("", r"none of 1 images has a label, such as .*labels/train/a\.txt"),
        ("0 .5 .5 0 .1", "left out: 1 box without area"),
    ],
)
def test_a_bad_label_is_refused_in_one_line(yolo, rows, message):
    refused(yolo(rows), message)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a: [", "data.yaml is no YAML"),
        ("- a", "data.yaml is no data set"),
        ("names: [a, b]", "names no images"),
        ("train: images/gone\nnames: [a, b]", r"train: .*images/gone is missing"),
        ("train: images/train", "needs names"),
        ("train: images/train\nnames: {1: a}", "names count from 0"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "nc is 3, and there are 2 names"),
        ("train: images/train\nnames: [a, A]", "repeats the name 'A'"),
        ("train: labels\nnames: [a, b]", "holds no images"),
        ("train: list.txt\nnames: [a, b]", r"list\.txt: .*gone\.png is missing"),
    ],
)
def test_a_bad_yaml_is_refused_in_one_line(yolo, tmp_path, table, message):
    (tmp_path / "list.txt").write_text("./gone.png\n")
    refused(yolo(table=table), message)


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path):
    refused(tmp_path / "gone", "is no COCO file: there is no such file")
    refused(tmp_path, "is no data set: it has no data.yaml")
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text("")
    refused(tmp_path, "has several YAML files")
    with pytest.raises(DatasetError, match=r"folder of images .* is missing"):
        read_instances(tmp_path, tmp_path / "gone")


def test_a_jpeg_that_is_cut_short_is_named_once_and_counted(voc, tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "JPEGImages" / "b.jpg")
    whole = (tmp_path / "JPEGImages" / "b.jpg").read_bytes()
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(whole[:-400])
    voc(name="b.jpg", stem="b")
    with caplog.at_level(logging.WARNING, "ape_stream"):
        data = read_instances(voc())
    assert only(data).path.name == "a.jpg"
    assert str(data.skips) == "1 image cut short"
    [line] = [record.getMessage() for record in caplog.records]
    assert line.endswith("JPEGImages/b.jpg is cut short")


def test_a_coco_file_is_the_only_json_of_its_folder(tmp_path):
    draw(tmp_path / "a.png")
    table = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "gizmo"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [9, 4, 21, 21]}],
    }
    (tmp_path / "data.json").write_text(json.dumps(table))
    assert only(read_instances(tmp_path)).regions[0].shape == BOX
    assert splits_of(tmp_path) == ()


def test_a_table_that_is_nested_too_deep_is_one_line(yolo):
    with pytest.raises(DatasetError, match=r"data\.yaml is no YAML: maximum recursion"):
        splits_of(yolo(table="[" * 1000))


def test_a_name_that_no_system_has_is_one_line(yolo):
    folder = yolo(table=f"train: {'x' * 300}\nnames: [gizmo]")
    with pytest.raises(DatasetError, match=r"data\.yaml|too long"):
        splits_of(folder)
    with pytest.raises(DatasetError, match="File name too long"):
        read_instances(folder)
