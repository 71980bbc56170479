"""Early checks for optional parts that are not installed."""

from importlib.util import find_spec

from plantml.errors import MissingExtraError

_SERVE = ("fastapi", "uvicorn", "sqlalchemy", "jwt", "pwdlib", "python_multipart", "prometheus_client", "limits")
_TRAIN = ("torch", "timm", "pytorch_lightning", "albumentations", "safetensors", "onnx")


def need_train() -> None:
    """Raise `MissingExtraError` unless everything of `[train]` can be imported."""
    missing = [name for name in _TRAIN if find_spec(name) is None]
    if missing:
        raise MissingExtraError("Training is not installed", f"missing: {', '.join(missing)}", extra="train")


def need_serve() -> None:
    """Raise `MissingExtraError` unless everything of `[serve]` can be imported."""
    missing = [name for name in _SERVE if find_spec(name) is None]
    if missing:
        raise MissingExtraError("The server is not installed", f"missing: {', '.join(missing)}", extra="serve")
