"""ML Metadata over gRPC and gRPC-Web: its library's own store (SQLite) behind its own service definition.

Kubeflow Pipelines' driver and launcher keep lineage and the cache of steps there, and its web interface reads it. The
official server is the same C++ library behind the same service, with Envoy before it for browsers; both are published
as images only, the library as the package ``ml-metadata``.
"""

import base64
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as native
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

PORT, WEB_PORT = 8080, 9090
FILE = "/data/metadata.db"
SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]
METHODS = {entry.name for entry in SERVICE.methods if hasattr(native, entry.name)}
# A connection of SQLite's is used by one at a time.
LOCK = threading.Lock()


def open_store():
    """The store, made when it is not there."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = FILE
    options = metadata_store_pb2.MigrationOptions()
    return native.CreateMetadataStore(config.SerializeToString(), options.SerializeToString())


def call(store, method, request):
    """The library's function of that name, bytes to bytes; with its message and code (that of gRPC)."""
    with LOCK:
        response, message, code = getattr(native, method)(store, request)
    return response, message.decode(), code


def grpc_server(store):
    """The service's methods. Requests and responses stay bytes: the library reads and writes them."""
    codes = {code.value[0]: code for code in grpc.StatusCode}

    def handler(method):
        def answer(request, context):
            response, message, code = call(store, method, request)
            if code:
                context.abort(codes[code], message)
            return response

        return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {method: handler(method) for method in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
    server.add_insecure_port(f"[::]:{PORT}")
    return server


def web_server(store):
    """The same for browsers: one frame in, a frame and the trailers as another frame out (PROTOCOL-WEB of gRPC)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            service, _, method = self.path.strip("/").rpartition("/")
            if service.rpartition("/")[2] != SERVICE.full_name or method not in METHODS:
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind = self.headers["Content-Type"]
            text = kind.startswith("application/grpc-web-text")
            body = base64.b64decode(body) if text else body
            response, message, code = call(store, method, body[5:])
            trailers = f"grpc-status: {code}\r\ngrpc-message: {message}\r\n".encode()
            answer = (b"" if code else frame(0, response)) + frame(0x80, trailers)
            answer = base64.b64encode(answer) if text else answer
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    return ThreadingHTTPServer(("", WEB_PORT), Handler)


def frame(flag, payload):
    """A frame: flag, length, payload."""
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


def main():
    """Serve until the end."""
    store = open_store()
    server = grpc_server(store)  # it ends when nobody holds it
    server.start()
    web_server(store).serve_forever()


if __name__ == "__main__":
    main()
