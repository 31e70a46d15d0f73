"""The union of all layouts: this is their registry."""

from typing import Annotated

from pydantic import Field

from vitlab.data.layouts.arrays import Camelyon, Cifar, DSprites, Records, SmallNorb, Svhn
from vitlab.data.layouts.files import ClassFolders, ImageLists, LabelTables
from vitlab.data.layouts.imagenet import ImageNet, ObjectNet
from vitlab.data.layouts.scenes import Clevr, Flowers, Kitti

AnyLayout = Annotated[
    ClassFolders
    | ImageLists
    | LabelTables
    | Cifar
    | Svhn
    | SmallNorb
    | DSprites
    | Camelyon
    | Records
    | Clevr
    | Kitti
    | Flowers
    | ImageNet
    | ObjectNet,
    Field(discriminator="type"),
]
"""How the files of a data set are laid out."""
