"""Examples of the OpenAPI document: one of each form that requests and answers have, by its name there."""

from typing import Any

_IMAGE = "96c4d2b427e31119a7fd4d10fd300ade9017722748b14f64785d912019f2c8b0"
_DIGEST = "7daefa18de48b01d549c107d430367c11ba25b52b9122d6f97fbd47034f331ff"
_TIME = "2026-06-01T08:30:00Z"
_WHEN = {"created": _TIME, "expires": "2027-06-01T08:30:00Z", "revoked": None, "used": None}
_LABELS = {"category": "tomato", "health": "diseased", "disease": "rust"}
_KEY = {"id": 3, "label": "line 3", "roles": ["category", "health"], **_WHEN}
_FLAG = {"code": "near-duplicate", "why": "it resembles rust/17.jpg", "target": "", "image_id": _IMAGE}
_SCORES = {"macro_f1": 0.9505, "joint_accuracy": 0.9167}
_SUMMARY = {
    "number": 2, "digest": _DIGEST, "aliases": ["production"], "added": _TIME, "by": "ada", "why": "more rust",
    "dataset": "s3://lab/leaves@7", "metrics": _SCORES,
}  # fmt: skip
_CONTRIBUTION = {
    "id": "e145ddc4d3366345011c93e5", "dataset": "leaves", "contributor": "ada", "file": "leaf.jpg",
    "image_id": _IMAGE, "width": 4000, "height": 3000, "labels": _LABELS, "boxes": None, "flags": [],
    "sent": _TIME, "state": "waiting", "reviewer": "", "decided": "", "why": "", "version": 0,
}  # fmt: skip
_BOX = {"x": 120.0, "y": 80.0, "w": 64.0, "h": 48.0}
_TASK = {
    "name": "rust/17.jpg", "image_id": _IMAGE, "width": 4000, "height": 3000, "why": "uncertain", "score": 0.51,
    "labels": _LABELS, "boxes": None, "prediction": {"disease": {"label": "rust", "score": 0.51}},
    "predicted_boxes": None,
}  # fmt: skip
_TENSOR = {"name": "target.category", "datatype": "FP32", "shape": [-1, 2]}

EXAMPLES: dict[str, Any] = {
    "AcceptedAnswer": {"dataset": "leaves", "version": 8, "ids": [_CONTRIBUTION["id"]]},
    "AliasAnswer": {"name": "production", "version": 2, "since": _TIME, "by": "ada", "why": "knows rust on tomatoes"},
    "AuditAnswer": {
        "id": 17, "time": _TIME, "user": "ada", "act": "contribution.accept", "subject": "leaves",
        "detail": {"version": 8}, "address": "192.0.2.7",
    },
    "Body_refresh": {"refresh_token": "kq3m…"},
    "Body_revoke": {"token": "kq3m…"},
    "Body_token": {"grant_type": "password", "username": "ada", "password": "a long password"},
    "BoxAnswer": {"index": 0, **_BOX, "labels": {"category": "tomato"}},
    "ContributionAnswer": _CONTRIBUTION,
    "DatasetDetail": {
        "name": "leaves", "version": 7, "versions": [1, 2, 3, 4, 5, 6, 7], "created": _TIME, "operation": "import",
        "photos": 372, "excluded": 4, "splits": {"train": 240, "val": 60, "test": 72},
        "targets": [
            {
                "name": "health", "kind": "class", "unit": "", "unlabelled": 0,
                "classes": [
                    {"name": "diseased", "photos": {"train": 160, "val": 40, "test": 48}},
                    {"name": "healthy", "photos": {"train": 80, "val": 20, "test": 24}},
                ],
            }
        ],
    },
    "Failure": {
        "what": "The dataset has too few photos", "why": "test needs 2 per class", "next": "Add some.", "exit_code": 3,
    },
    "FlagAnswer": _FLAG,
    "HistoryEvent": {
        "number": 5, "time": _TIME, "act": "promote", "version": 2, "alias": "production", "before": 1, "by": "ada",
        "why": "knows rust on tomatoes", "forced": False, "scores": _SCORES,
    },
    "Ids": {"ids": [_CONTRIBUTION["id"]]},
    "InferenceAnswer": {
        "model_name": "leaf", "model_version": "2", "id": "1",
        "outputs": [{"name": "target.category", "datatype": "FP32", "shape": [1, 2], "data": [0.97, 0.03]}],
    },
    "KeyAnswer": _KEY,
    "ModelAnswer": {
        "name": "leaf",
        "versions": [_SUMMARY],
        "aliases": [{"name": "production", "version": 2, "since": _TIME, "by": "ada", "why": "more rust"}],
    },
    "ModelMetadata": {
        "name": "leaf", "versions": ["1", "2"], "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 224, 224, 3]}], "outputs": [_TENSOR],
    },
    "Moved": {"model": "leaf", "alias": "production", "version": 2, "before": 1, "changed": True},
    "NewKeyAnswer": {**_KEY, "secret": "plantml_Wk3…"},
    "OutcomeAnswer": {
        "file": "leaf.jpg", "state": "waiting", "id": _CONTRIBUTION["id"], "image_id": _IMAGE, "code": "", "why": "",
        "flags": [_FLAG],
    },
    "OutputTensor": {"name": "target.category", "datatype": "FP32", "shape": [1, 2], "data": [0.97, 0.03]},
    "PredictedBox": {**_BOX, "score": 0.93, "labels": {"category": "tomato"}},
    "Rejection": {"ids": [_CONTRIBUTION["id"]], "why": "out of focus"},
    "ReviewQueue": {
        "dataset": "leaves", "version": 7, "model": "leaf@2", "state": "ready", "done": 372, "total": 372,
        "photos": [_TASK], "contributions": [_CONTRIBUTION],
    },
    "ReviewTask": _TASK,
    "Reviewed": {"dataset": "leaves", "version": 8},
    "Sent": {
        "photos": [
            {"file": "leaf.jpg", "state": "waiting", "id": _CONTRIBUTION["id"], "image_id": _IMAGE},
            {"file": "a.txt", "state": "refused", "code": "unreadable", "why": "it is no photo"},
        ]
    },
    "ServerMetadata": {"name": "plantml", "version": "0.1.0", "extensions": ["binary_tensor_data"]},
    "TensorMetadata": _TENSOR,
    "TokenAnswer": {
        "access_token": "eyJhbGciOi…", "refresh_token": "kq3m…", "token_type": "bearer", "expires_in": 900,
    },
    "Training": {
        "id": 4, "status": "running", "stage": "train", "dataset": "leaves@7", "name": "leaf", "version": None,
        "preset": "quick", "budget": 1200.0, "test_share": 0.2, "config": {}, "retrain": None, "by": "ada",
        "submitted": _TIME, "stage_began": _TIME, "ended": None, "worker": "gpu-1", "retries": 0,
        "progress": {"epoch": 12, "epochs": 60, "score": 0.91, "seconds_left": 640.0}, "result": None, "failure": None,
    },
    "TrainingResult": {
        "model": "leaf@3", "digest": _DIGEST, "scores": _SCORES, "validated": True, "outcome": "promoted",
        "reasons": ["macro_f1 0.9100 against 0.8700, better in 97.2% of resamples"],
    },
    "VersionAnswer": {
        **_SUMMARY, "size": 29700000, "task": "image", "contract": {"input": {"size": 224, "fit": "pad"}},
        "config": {"preset": "quick"}, "plots": ["training_curves.png"], "training": 4, "validated": True,
    },
    "VersionSummary": _SUMMARY,
}  # fmt: skip
