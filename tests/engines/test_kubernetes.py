"""The manifest of a Job, and what its pods do."""

import os
import subprocess
import sys

import pytest
import yaml

from plantml import storage
from plantml.errors import Exit


def test_pods_need_urls_and_are_not_started_from_here(cli, trained, tmp_path):
    line = ("detect", trained.photos, "--model", trained.run, "--out", tmp_path / "records.jsonl")
    for options, expected in [
        (("--on", "k8s:4"), "--print > job.yaml"),
        (("--on", "local:4", "--print"), "--print needs --on k8s:N"),
        (("--on", "k8s:4", "--print"), "--model is"),
    ]:
        result = cli(*line, *options)
        assert result.code == Exit.USAGE
        assert expected in result.err


@pytest.mark.slow
def test_pods_of_a_printed_manifest_fill_the_journal(cli, trained, s3_url):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for place in ("run/bundle", "photos"):
        local = storage.local_path(trained.photos if place == "photos" else f"{trained.run}/bundle")
        for file in filter(lambda file: file.is_file(), local.rglob("*")):
            storage.write(storage.join(s3_url, place, str(file.relative_to(local))), file.read_bytes())
    out = f"{s3_url}/records.jsonl"
    line = ("detect", f"{s3_url}/photos", "--model", f"{s3_url}/run", "--out", out)
    result = cli(*line, "--on", "k8s:2", "--print")
    assert result.code == 0, result.err
    assert "repeat the command without --on" in result.err
    manifest = yaml.safe_load(result.out)
    kubernetes_validate.validate(manifest, "1.33", strict=True)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    for index in range(manifest["spec"]["completions"]):
        environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index)}
        subprocess.run([sys.executable, *container["command"][1:]], env=environment, check=True)
    assert cli(*line, "--json").json["resumed"] == 72
    assert cli(*line, "--on", "k8s:2", "--print").code == Exit.INPUT
