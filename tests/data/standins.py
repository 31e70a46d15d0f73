"""Tiny data sets in the file layouts of the originals, made from nothing."""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image


def picture(path, shade=0, size=(6, 4), kind=None):
    """Write an image of one shade of grey, which tells it from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path, kind)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pixels(number, count, *shape):
    """Return `count` random arrays of uint8; `number` is the seed."""
    return np.random.default_rng(number).integers(0, 256, (count, *shape)).astype(np.uint8)


def cifar10(root, per_file=4):
    """Five training files and one for testing: label, then red, green, blue planes. Returns images and labels of training."""
    images, labels = pixels(0, 5 * per_file, 3, 32, 32), np.arange(5 * per_file) % 10
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = [bytes([label]) + image.tobytes() for image, label in zip(images, labels.tolist(), strict=True)]
    for number in range(5):
        part = records[number * per_file : (number + 1) * per_file]
        (folder / f"data_batch_{number + 1}.bin").write_bytes(b"".join(part))
    (folder / "test_batch.bin").write_bytes(b"".join(records[:3]))
    write(folder / "batches.meta.txt", "\n".join([f"class {number}" for number in range(10)]) + "\n\n")
    return images.transpose(0, 2, 3, 1), labels


def cifar100(root, count=1200):
    """One file a split: coarse label, fine label, planes."""
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    labels = np.arange(count) % 100
    image = pixels(0, 1, 3, 32, 32)[0].tobytes()
    records = [bytes([19, label]) + image for label in labels.tolist()]
    (folder / "train.bin").write_bytes(b"".join(records))
    (folder / "test.bin").write_bytes(b"".join(records[:100]))
    write(folder / "fine_label_names.txt", "\n".join(f"fine {number}" for number in range(100)))
    return labels


def mat(path, compressed=True, **arrays):
    """Write a MATLAB 5 file with numeric arrays."""
    kinds = {"uint8": (2, 9), "uint16": (4, 11), "float64": (9, 6)}

    def element(kind, content):
        if 0 < len(content) <= 4:
            return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    body = b""
    for name, array in arrays.items():
        stored, number = kinds[array.dtype.name]
        parts = element(6, struct.pack("<II", number, 0)) + element(5, np.array(array.shape, "<i4").tobytes())
        parts += element(1, name.encode()) + element(stored, array.tobytes(order="F"))
        matrix = struct.pack("<II", 14, len(parts)) + parts
        packed = zlib.compress(matrix)
        body += struct.pack("<II", 15, len(packed)) + packed if compressed else matrix
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + body)


def flowers(root, classes=3, images=9):
    """Images by number, labels from 1, and the numbers of the images of every split."""
    for number in range(1, images + 1):
        picture(root / f"jpg/image_{number:05d}.jpg", number)
    mat(root / "imagelabels.mat", labels=(np.arange(images) % classes + 1).astype(np.uint8)[None])
    numbers = np.arange(1, images + 1).astype(np.uint16)
    mat(root / "setid.mat", trnid=numbers[None, ::3], valid=numbers[None, 1::3], tstid=numbers[None, 2::3])


def svhn(root, train=12, test=3):
    images, digits = pixels(0, train, 32, 32, 3), np.arange(train) % 10 + 1
    for name, count in (("train", train), ("test", test)):
        stacked = np.moveaxis(images[:count], 0, -1)
        mat(root / f"{name}_32x32.mat", X=stacked, y=digits[:count, None].astype(np.float64))
    return images, digits % 10


def norb_matrix(path, array):
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    shape = [*array.shape, *[1] * (3 - array.ndim)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f"<II{len(shape)}i", magic, array.ndim, *shape) + array.tobytes())


def smallnorb(root, train=20, test=20):
    """Pairs of grey images; info is instance, elevation (0 to 8), azimuth (0 to 34, even), lighting (0 to 5)."""
    for stem, count in (("5x46789x9x18x6x2x96x96-training", train), ("5x01235x9x18x6x2x96x96-testing", test)):
        places = np.arange(count)
        norb_matrix(root / f"smallnorb-{stem}-dat.mat", pixels(count, count, 2, 96, 96))
        norb_matrix(root / f"smallnorb-{stem}-cat.mat", (places % 5).astype(np.int32))
        info = np.stack([places * 0 + 4, places % 9, places % 18 * 2, places % 6], 1).astype(np.int32)
        norb_matrix(root / f"smallnorb-{stem}-info.mat", info)


def dsprites(root, count=1280):
    """Arrays as the .npz has them once it is unpacked, its pickled member too."""
    root.mkdir(parents=True)
    images = (pixels(0, count, 64, 64) > 127).astype(np.uint8)
    places = np.arange(count)
    latents = np.stack([places * 0, places % 3, places % 6, places % 40, places % 32, places // 40 % 32], 1)
    np.save(root / "imgs.npy", images)
    np.save(root / "latents_classes.npy", latents)
    (root / "metadata.npy").write_bytes(b"\x93NUMPY\x01\x00 never to be read")
    return images, latents


def clevr(root, train=None, val=None):
    """Scenes by split: the depths of their objects."""
    for split, scenes in (("train", train or [[9.0, 8.2, 12.0]]), ("val", val or [[8.0, 10.5, 11.0]])):
        described = []
        for number, depths in enumerate(scenes):
            name = f"CLEVR_{split}_{number:06d}.png"
            picture(root / f"CLEVR_v1.0/images/{split}/{name}", number, kind="PNG")
            objects = [{"pixel_coords": [1, 2, depth], "shape": "cube"} for depth in depths]
            described.append({"image_filename": name, "objects": objects})
        content = {"info": {"split": split}, "scenes": described}
        write(root / f"CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json", json.dumps(content, indent=1))


def kitti(root, vehicles):
    """An image and a list of objects for each entry of `vehicles`, (video, [(kind, depth), ...])."""
    order = list(range(len(vehicles)))[::-1]  # image i is line len - i of the mapping
    for number, (_, objects) in enumerate(vehicles):
        picture(root / f"training/image_2/{number:06d}.png", number, kind="PNG")
        lines = [f"{kind} 0.00 0 -1.5 1 2 3 4 1.5 1.6 3.7 0.1 1.7 {depth} -1.6" for kind, depth in objects]
        write(
            root / f"training/label_2/{number:06d}.txt",
            "\n".join([*lines, "DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10"]),
        )
    rows = [f"2011_09_26 {vehicles[place][0]} {place:010d}" for place in order]
    write(root / "mapping/train_mapping.txt", "\n".join(rows) + "\n")
    write(
        root / "mapping/train_rand.txt", ",".join(str(len(vehicles) - place) for place in range(len(vehicles))) + "\n"
    )


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*fields):
    """Return a protocol-buffer message of fields (number, bytes or integer)."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def record(image, name, label, packed=True):
    """Return a record of TensorFlow's with an example of image, file name and label."""
    numbers = message((1, varint(label))) if packed else message((1, label))
    values = {"image": (1, message((1, image))), "filename": (1, message((1, name))), "label": (3, numbers)}
    entries = [(1, message((1, key.encode()), (2, message(value)))) for key, value in values.items()]
    content = message((1, message(*entries)))
    return struct.pack("<Q", len(content)) + b"sum1" + content + b"sum2"


def dmlab(root, counts=None):
    """A file or two a split."""
    root.mkdir(parents=True)
    for split, count in (counts or {"train": 8, "validation": 4, "test": 3}).items():
        for part in range(2):
            numbers = range(part, count, 2)
            made = [
                record(jpeg(number), f"{split}{number}.jpg".encode(), number % 6, packed=number < 4)
                for number in numbers
            ]
            (root / f"dmlab-{split}.tfrecord-0000{part}").write_bytes(b"".join(made))


def jpeg(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def pets(root, classes=("Abyssinian", "american_bulldog", "Bengal"), each=4):
    rows = [f"{name}_{number} {label} 1 1" for label, name in enumerate(classes, 1) for number in range(each)]
    for place, row in enumerate(rows):
        picture(root / "images" / f"{row.split()[0]}.jpg", place)
    write(root / "annotations/trainval.txt", "\n".join(row for row in rows if "_0 " not in row) + "\n")
    write(root / "annotations/test.txt", "#comment\n" + "\n".join(row for row in rows if "_0 " in row) + "\n")


def dtd(root, classes=("banded", "dotted", "woven")):
    for split, kept in (("train", 0), ("val", 1), ("test", 2)):
        names = [f"{name}/{name}_{kept:04d}.jpg" for name in classes]
        for place, name in enumerate(names):
            picture(root / "dtd/images" / name, 10 * kept + place)
        write(root / f"dtd/labels/{split}1.txt", "\n".join(names) + "\n")


def retinopathy(root):
    """Training labels, and one table for the other two splits."""
    for split, names in (("train", ["10_left", "10_right"]), ("test", ["1_left", "1_right", "2_left"])):
        for place, name in enumerate(names):
            picture(root / f"{split}/{name}.jpeg", place, kind="JPEG")
    write(root / "trainLabels.csv", "image,level\n10_left,0\n10_right,4\n")
    write(
        root / "retinopathy_solution.csv", "image,level,Usage\n1_left,1,Private\n1_right,2,Public\n2_left,3,Private\n"
    )


def class_folders(root, classes, each=3, form="{name}_{number}.jpg"):
    for place, name in enumerate(classes):
        for number in range(each):
            picture(root / name / form.format(name=name, number=number), 10 * place + number)


def objectnet(root, labels):
    """ObjectNet with its mappings; `labels` says for each of its labels which ImageNet classes match it."""
    from vitlab.data.layouts.examples import imagenet_synsets

    words = list(imagenet_synsets().values())
    home = root / "objectnet-1.0"
    order = list(range(1000))[::-1]  # ImageNet's own numbers differ from those in use
    folders = {label.lower().replace(" ", "_"): label for label in [*labels, "Not in ImageNet"]}
    for place, folder in enumerate(folders):
        image = Image.new("RGB", (5, 4), (255, 0, 0))
        image.paste((place, place, place), (1, 1, 4, 3))
        path = home / "images" / folder / "a.png"
        path.parent.mkdir(parents=True)
        image.save(path)
    write(home / "mappings/folder_to_objectnet_label.json", json.dumps(folders))
    matched = {label: "; ".join(words[number] for number in numbers) for label, numbers in labels.items()}
    write(home / "mappings/objectnet_to_imagenet_1k.json", json.dumps(matched))
    write(home / "mappings/pytorch_to_imagenet_2012_id.json", json.dumps({str(n): order[n] for n in range(1000)}))
    write(home / "mappings/imagenet_to_label_2012_v2", "\n".join(words[order[line]] for line in range(1000)))


def vtab(root, task, sizes, classes=3):
    """The archive of VTAB-1k that is handed around for PyTorch."""
    for subset, size in sizes.items():
        names = [f"images/{subset}/{number:06d}.jpg" for number in range(size)]
        for number, name in enumerate(names):
            picture(root / "vtab-1k" / task / name, number % 200)
        text = "".join(f"{name} {number % classes}\n" for number, name in enumerate(names))
        write(root / "vtab-1k" / task / f"{subset}.txt", text)
