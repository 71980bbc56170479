"""Image folders: `class/photo.jpg`, or `train/class/photo.jpg` where the set is split."""

from plantml.data.exporters import Set, Written, path, rest
from plantml.data.exporters.naming import NO_LABEL, ClassNames, main_targets
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar


def write(content: Set, out: Output) -> Written:
    """A folder a class. Category, health and disease make one class name together; other targets are in the sidecar."""
    said = main_targets(content.targets)
    labels = {
        photo.file: {name: photo.labels[name] for name in said if name in photo.labels} for photo in content.photos
    }
    names = ClassNames(labels.values(), empty=NO_LABEL, folders=True)
    images = {}
    for photo, data in out.read(content.photos):
        name = path(photo.split or "", names[labels[photo.file]], photo.file)
        out.put(name, data)
        images[name] = rest(photo, targets=said, split=photo.split)
    kept = {name: said_ for name, said_ in images.items() if said_}
    sidecar = Sidecar("folder", content.targets, names.meaning, kept)
    return Written(None, sidecar, {"photos": len(images), "classes": len(names.meaning)})
