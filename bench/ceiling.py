"""`detect` beside the machine's ceiling: the fastest decoder, resize and form of the network here, each alone.

Others decode or compute in another way than plantml does, and their pixels or outputs may differ; what they show is
what this machine can do.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median

from bench import ceiling_sides
from bench.environments import environment
from bench.material import Material
from bench.measure import Row, Sample, Side, compare, take_turns, tell

_PIXELS, _NETWORK = "bench.ceiling_sides:pixels", "bench.ceiling_sides:network"
_PHOTOS = 64
"""Photos that a decoder decodes in a round."""
_IN_AN_ENVIRONMENT = "simplejpeg"
"""A decoder that nothing else needs."""


def run(material: Material) -> list[Row]:
    """All rows: every decoder and form beside plantml's, and detect in each form beside the fastest of both."""
    forms = [name for name in ceiling_sides.FORMS if _is_installed(name.split()[0])]
    given = {"model": material.bundle, "int8": material.int8}
    sides = {form: partial(Side, _NETWORK, form=form, **given) for form in forms}
    networks = take_turns(sides, material.size.rounds, "networks")
    usual = "onnxruntime float32"
    rows = [
        compare("ceiling", f"network alone: {name}", usual, samples, networks[usual])
        for name, samples in networks.items()
        if name != usual
    ]
    for photos, folder in material.sizes.items():
        rows += _photos(material, photos, folder, networks)
    return rows


def _photos(material: Material, photos: str, folder: str, networks: Mapping[str, Sequence[Sample]]) -> list[Row]:
    jpeg = "JPEG" in photos
    decoders = [
        name
        for name in ceiling_sides.DECODERS
        if not name.startswith(_IN_AN_ENVIRONMENT) and _is_installed(name.split()[0].lower())
    ]
    sides = {name: partial(Side, _PIXELS, folder=folder, decoder=name, photos=_PHOTOS) for name in decoders}
    if jpeg:
        python = environment(material.folder / _IN_AN_ENVIRONMENT, _IN_AN_ENVIRONMENT)
        name = next(name for name in ceiling_sides.DECODERS if name.startswith(_IN_AN_ENVIRONMENT))
        decoders.append(name)
        sides[name] = partial(Side, _PIXELS, python=python, folder=folder, decoder=name, photos=_PHOTOS)
    given = {"folder": folder, "scratch": str(material.folder)}
    sides |= {
        form: partial(Side, "bench.detect_sides:library", **given, **options)
        for form, options in {
            "float32": {"model": material.bundle},
            "int8": {"model": material.int8},
            "bfloat16": {"model": material.bundle, "bfloat16": True},
        }.items()
        if any(name.endswith(form) for name in networks)
    }
    turns = dict(take_turns(sides, material.size.rounds, f"ceiling, {photos}"))
    detected = {form: turns.pop(form) for form in list(turns) if form not in decoders}
    rows = [
        compare("ceiling", f"pixels alone, {photos}: {name}", "plantml", samples, turns["plantml"])
        for name, samples in turns.items()
        if name != "plantml"
    ]
    decoder = _fastest(turns)
    for form, samples in detected.items():
        network = _fastest({name: each for name, each in networks.items() if name.endswith(form)})
        ceiling = f"the ceiling of that form: {decoder}, then {network}"
        rows.append(
            compare("ceiling", f"detect in {form}, {photos}", ceiling, samples, turns[decoder], networks[network])
        )
    network = _fastest(networks)
    ceiling = f"the machine's ceiling: {decoder}, then {network}"
    return rows + [
        compare("ceiling", f"detect in {form}, {photos}", ceiling, samples, turns[decoder], networks[network])
        for form, samples in detected.items()
        if not network.endswith(form)
    ]


def _fastest(samples: Mapping[str, Sequence[Sample]]) -> str:
    """By processor time, which other work disturbs less."""
    return max(samples, key=lambda name: median(sample.cpu_rate for sample in samples[name]))


def _is_installed(module: str) -> bool:
    names = {"pillow": "PIL"}
    installed = find_spec(names.get(module, module)) is not None
    if not installed:
        tell(f"without {module}, which is not installed")
    return installed
