"""Image folders: `class/photo.jpg`, or `train/class/photo.jpg` if the dataset is split."""

from plantml.data.exporters import ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import NO_LABEL, ClassNames, main_targets
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar


def write(content: ExportSet, out: Output) -> Written:
    """Write one folder per class name, made of category, health and disease; other targets go to the sidecar."""
    class_targets = main_targets(content.targets)
    labels = {photo.file: photo.labels_of(class_targets) for photo in content.photos}
    names = ClassNames(labels.values(), empty=NO_LABEL, folders=True)
    images = {}
    for photo, data in out.read(content.photos):
        name = path(photo.split or "", names[labels[photo.file]], photo.file)
        out.write(name, data)
        images[name] = sidecar_entry(photo, targets=class_targets, split=photo.split)
    sidecar = Sidecar("folder", content.targets, names.meaning, images)
    return Written(None, sidecar, {"photos": len(images), "classes": len(names.meaning)})
