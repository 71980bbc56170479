"""What may be loaded when: help stays quick, and datasets and detection never need torch."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "pytorch_lightning",
    "timm",
    "polars",
    "cv2",
    "pydantic_settings",
    "s3fs",
    "matplotlib",
    "scipy",
}


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def run_command(*arguments: str) -> str:
    return f"from plantml.cli.app import run; code = run({list(arguments)!r}); assert code == 0, code"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["detect", "--help"], ["dataset", "import", "--help"], ["work", "--help"]],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded_by(run_command(*arguments)) & (HEAVY | {"numpy", "rich"})


def test_the_first_help_page_loads_no_pydantic_either() -> None:
    assert "pydantic" not in loaded_by(run_command("--help"))


def test_importing_plantml_loads_nothing_heavy() -> None:
    assert not loaded_by("import plantml, plantml.cli.app") & (HEAVY | {"numpy", "fsspec", "obstore", "onnxruntime"})


def test_dataset_commands_run_without_torch(tmp_path, photo) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(photo(seed=len(name)))
    commands = [
        run_command("dataset", "import", f"{tmp_path}/photos", f"{tmp_path}/data", "--labels", "category"),
        run_command("dataset", "split", f"{tmp_path}/data"),
        run_command("dataset", "info", f"{tmp_path}/data"),
        run_command("dataset", "check", f"{tmp_path}/data", "--only", "files,pictures,duplicates,groups,labels,boxes"),
        run_command("dataset", "clean", f"{tmp_path}/data", "--apply", "exact-duplicates,truncated"),
        run_command("dataset", "verify", f"{tmp_path}/data"),
    ]
    assert not loaded_by("\n".join(commands)) & {"torch", "pytorch_lightning", "timm", "cv2"}


def test_detection_to_json_lines_loads_neither_torch_nor_tables(tmp_path, trained) -> None:
    code = run_command("detect", trained.photos, "--model", trained.run, "--out", f"{tmp_path}/records.jsonl")
    loaded = loaded_by(code)
    assert not loaded & {"torch", "polars", "s3fs", "fsspec", "matplotlib", "pydantic_settings", "scipy", "obstore"}
    assert {"onnxruntime", "PIL"} <= loaded
    # What a JPEG, a local bundle and records as JSON Lines do not need, which a cold start would pay for.
    assert not loaded & {
        "PIL.GifImagePlugin", "PIL.TiffImagePlugin", "PIL.ImageDraw", "tarfile", "plantml.metrics",
        "plantml.registry.publishing", "plantml.detect.formats.coco", "plantml.detect.annotate",
    }  # fmt: skip


def test_a_server_needs_nothing_of_the_other_extras(tmp_path) -> None:
    """Training is the work of `plantml work`, perhaps on another machine."""
    absent = ("torch", "torchvision", "timm", "pytorch_lightning", "albumentations", "safetensors", "filelock", "onnx",
              "sklearn", "cv2", "cleanlab", "openvino", "pillow_heif", "psycopg", "mlflow")  # fmt: skip
    code = f"""
import sys
sys.modules |= dict.fromkeys({absent!r})
from plantml import settings
from plantml.serve import server
from plantml.serve.config import ServeConfig
from plantml.serve.service import open_service
service = open_service({str(tmp_path / "models")!r}, ServeConfig(state={str(tmp_path)!r}), settings.machine())
server.create_app(service).openapi()
service.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


MISTAKES = [
    ("train DATA --set nonsense=1", 3),
    ("train DATA --set size=[1", 2),
    ("train DATA --set epochs=many", 3),
    ("train DATA --config TMP/wrong.yaml", 3),
    ("train DATA --targets nonsense", 3),
    ("train DATA --where split!='val'", 3),
    ("train DATA --preset fast", 2),
    ("train DATA --config TMP/none.yaml", 3),
    ("train DATA --where nonsense==1", 2),
    ("train DATA --from TMP/none", 3),
    ("train DATA --folds 3 --devices 2", 2),
    ("train TMP/none", 3),
    ("train TMP/none --dry-run", 3),
    ("export TMP/none --to TMP/leaf.onnx", 3),
    ("export TMP/none --to TMP/leaf.doc", 2),
    ("export TMP/none --benchmark", 3),
    ("retrain TMP/none.yaml", 3),
    ("retrain TMP/retrain.yaml --set train.nonsense=1", 3),
    ("retrain TMP/retrain.yaml --step nonsense", 2),
]


def test_a_mistake_is_told_before_anything_heavy_is_loaded(tmp_path, trained) -> None:
    (tmp_path / "retrain.yaml").write_text(f"{{dataset: {tmp_path}/a, model: {tmp_path}/b, work: {tmp_path}/c}}")
    (tmp_path / "wrong.yaml").write_text("lr: fast")
    heavy = {"torch", "timm", "pytorch_lightning", "onnxruntime", "cv2", "matplotlib"}
    code = f"import sys; from plantml.cli.app import run; heavy = {heavy!r}\n"
    for text, expected in MISTAKES:
        line = text.replace("TMP", str(tmp_path)).replace("DATA", trained.data).split()
        code += (
            f"found = run({line!r}), heavy & set(sys.modules); assert found == ({expected}, set()), ({text!r}, found)\n"
        )
    loaded_by(code)


def test_validation_runs_without_torch(trained) -> None:
    assert "torch" not in loaded_by(run_command("validate", trained.data, "--model", trained.run))
