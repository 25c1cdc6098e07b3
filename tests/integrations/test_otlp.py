"""A solve's spans at a collector: the real exporter, and a small receiver of OTLP over HTTP on loopback."""

from __future__ import annotations

import gzip
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
from tts_plugins import BestOfN, solve_sync
from tts_plugins.testing import ScriptedModel, TableVerifier
model = ScriptedModel(["#### 1", "#### 2"])
solve_sync("a secret question", model=model, verifier=TableVerifier({"1": 0.2, "2": 0.9}), strategy=BestOfN(n=2))
provider.shutdown()
"""


def test_a_collector_receives_the_tree_of_a_solve() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    bodies: list[bytes] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            environment = {
                **os.environ,
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}",
            }
            subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, timeout=120)
        finally:
            server.shutdown()
            thread.join()
    spans = [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    names = sorted(span.name for span in spans)
    assert names[-1] == "tts_plugins.wave" and names.count("tts_plugins.candidate") == 2 and "chat scripted" in names
    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == "tts_plugins.solve" and len({span.trace_id for span in spans}) == 1
    assert {span.parent_span_id for span in spans} - {b""} <= {span.span_id for span in spans}
    assert b"a secret question" not in b"".join(bodies)
