"""What the tests share: real peers, a real service, a small real network."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triage.core.access import Role
from triage.edges.store import Accounts, Store

ROOT = Path(__file__).parents[1]
API_TOKEN = "a token for tests only"
IN_CI = os.environ.get("CI") == "true"


def unavailable(what: str) -> None:
    """Skip with the reason on a user's machine; in CI everything must be there."""
    if IN_CI:
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is not here")


def tool(name: str) -> str:
    """The path of a peer's program."""
    path = shutil.which(name)
    if path is None:
        unavailable(name)
    return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "it") -> Any:
    """The first true value of the condition; fails when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}")
        threading.Event().wait(0.02)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real cases and heads that lie beside the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        unavailable("../shared")
    return folder


@pytest.fixture(scope="session")
def case(shared: Path) -> Callable[[str], Path]:
    """The folder of DICOM files of a real case."""
    return lambda name: shared / "cases" / name / "data"


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL, but for the database's name, of a PostgreSQL server of our own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or os.geteuid():
        unavailable("PostgreSQL, or root to start it as its own user,")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
    shutil.chown(folder, "postgres", "postgres")
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(programs[-1].with_name(program)), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    data = str(folder / "data")
    run("initdb", "-A", "trust", "-D", data)
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run("pg_ctl", "-w", "-D", data, "-l", str(folder / "log"), "-o", settings, "start")
    yield f"postgresql+psycopg://postgres@127.0.0.1:{port}"
    run("pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    from sqlalchemy import create_engine, text

    name = f"triage_{os.urandom(4).hex()}"
    engine = create_engine(f"{postgresql_server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgresql_server}/{name}"


@pytest.fixture(scope="session")
def released_bundle() -> Path:
    """The newest bundle under models/."""
    from triage.edges.inference import newest_bundle

    return newest_bundle(ROOT / "models")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ONNX network of a few hundred bytes that answers 0.9 to everything.

    Its thresholds make that ASPECTS 1-6 ("alarming", the default) or 7-10 ("calm").
    """
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny-0.0.1")


def make_tiny_bundle(folder: Path, probability: float = 0.9, golden: float | None = None) -> Path:
    import onnx
    from onnx import TensorProto, helper

    from triage.core.bundle import ModelSpec
    from triage.core.preprocess import PreprocessSettings

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "answer"], ["probability"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 20, 80, 80])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
            helper.make_tensor("answer", TensorProto.FLOAT, [1], [probability]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    spec = ModelSpec(
        name="tiny",
        version="0.0.1",
        sha256=hashlib.sha256(content).hexdigest(),
        input_name="x",
        probability_name="probability",
        thresholds={"alarming": 0.5, "calm": 0.95},
        default_threshold="alarming",
        preprocessing=PreprocessSettings(),
        training_data="a constant, for tests",
        development=True,
        golden_tolerance=1e-3,
    )
    (folder / "spec.json").write_text(spec.model_dump_json(indent=2))
    voxels = np.zeros((20, 32, 32), np.float32)
    voxels[:, 8:24, 6:26] = 100
    np.savez_compressed(
        folder / "golden.npz",
        voxels_ZYX=voxels,
        affine_lps=np.diag([2.0, 2.0, 5.0, 1.0]),
        b_value=1000.0,
        probability=probability if golden is None else golden,
    )
    return folder


@dataclass(slots=True)
class Webhook:
    """A local HTTP server that keeps what is posted to it."""

    port: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    status: int = 204

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/alert"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    hook = Webhook(server.server_address[1])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.messages.append(json.loads(body))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server.RequestHandlerClass = Handler
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()


@dataclass(slots=True)
class Orthanc:
    """A real PACS in a process of its own."""

    dicom_port: int
    http_port: int
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dicom_port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def bytes_of(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def instances(self) -> list[str]:
        return list(self.get("/instances"))


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path / "orthanc", free_port(), free_port()) as pacs:
        yield pacs


@contextlib.contextmanager
def running_orthanc(folder: Path, dicom_port: int, http_port: int) -> Iterator[Orthanc]:
    program = tool("Orthanc")
    folder.mkdir(exist_ok=True)
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "db"),
                "IndexDirectory": str(folder / "db"),
                "DicomAet": "ORTHANC",
                "DicomPort": dicom_port,
                "HttpPort": http_port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomAlwaysAllowStore": True,
                "Plugins": [],
            }
        )
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    pacs = Orthanc(dicom_port, http_port, process)

    def answers() -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            return bool(pacs.get("/system"))
        return False

    try:
        until(answers, what="Orthanc")
        yield pacs
    finally:
        process.terminate()
        process.wait(30)


@dataclass(slots=True)
class ServiceProcess:
    """`triage serve` in a process of its own, told everything by its environment."""

    environment: dict[str, str]
    dicom_port: int
    http_port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "triage", "serve"],
                env=self.environment, cwd=self.log.parent, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._is_ready, what="the service to be ready")

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the service ended with {self.process.returncode}:\n{self.log.read_text()}")
        try:
            return bool(self.get("/readyz"))
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        """Stop politely; the service has to come to its own end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(60) == 0, self.log.read_text()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def get(self, path: str) -> Any:
        return json.loads(self.page(path))

    def post(self, path: str, body: object) -> Any:
        return json.loads(self.page(path, json.dumps(body).encode()))

    def page(self, path: str, body: bytes | None = None) -> str:
        """What a program with the service's token gets."""
        headers = {"Authorization": f"Bearer {API_TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def add_account(self, name: str, password: str, role: Role) -> None:
        """Somebody who can log in to the page, made beside the running service."""
        store = Store.open(f"sqlite:///{self.environment['TRIAGE_STORE__DIR']}/triage.db")
        Accounts(store.engine).add(name, password, role, datetime.now(UTC))
        store.close()

    def series(self, uid: str) -> dict[str, Any] | None:
        try:
            return dict(self.get(f"/api/series/{uid}"))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def wait_for(self, uid: str, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The series' JSON once the condition holds."""

        def holds() -> dict[str, Any] | None:
            found = self.series(uid)
            return found if found is not None and condition(found) else None

        return dict(until(holds, what=what))


@pytest.fixture
def service_process(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Make (not start) a service; keyword arguments are environment variables without TRIAGE_."""
    made: list[ServiceProcess] = []

    def make(**settings: str) -> ServiceProcess:
        dicom_port, http_port = free_port(), free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRIAGE_")} | {
            "PYTHONPATH": str(ROOT),
            "TRIAGE_STORE__DIR": str(tmp_path / "data"),
            "TRIAGE_DICOM__HOST": "127.0.0.1",
            "TRIAGE_DICOM__PORT": str(dicom_port),
            "TRIAGE_HTTP__PORT": str(http_port),
            "TRIAGE_HTTP__API_TOKEN": API_TOKEN,
            # A busy machine may pause for a second between two images, and that is no silence.
            "TRIAGE_DICOM__QUIET_S": "3",
        }
        environment |= {f"TRIAGE_{key}": value for key, value in settings.items()}
        service = ServiceProcess(environment, dicom_port, http_port, tmp_path / "service.log")
        made.append(service)
        return service

    yield make
    for service in made:
        service.stop()


def storescu(folder: Path, port: int, *options: str) -> None:
    """Send a folder with DCMTK's storescu, as it comes."""
    command = [tool("storescu"), *options, "-aec", "TRIAGE", "+sd", "+r", "127.0.0.1", str(port), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
