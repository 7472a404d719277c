"""ML Metadata over gRPC: its library's own store (SQLite) behind its own service definition.

Kubeflow Pipelines' driver and launcher keep lineage and the cache of steps there. The official server is the same C++
library behind the same service; it is published as an image only, the library as the package ``ml-metadata``.
"""

from concurrent import futures

import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as native
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

PORT = 8080
FILE = "/data/metadata.db"
_SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def handlers(store):
    """The service's methods, each answered by the library's function of that name."""

    def method(name):
        function = getattr(native, name)

        def answer(request, context):
            response, message, code = function(store, request)
            if code:
                context.abort(_CODES[code], message.decode())
            return response

        # Requests and responses stay bytes: the library reads and writes them.
        return grpc.unary_unary_rpc_method_handler(answer)

    return {entry.name: method(entry.name) for entry in _SERVICE.methods if hasattr(native, entry.name)}


def main():
    """Serve until the end."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = FILE
    options = metadata_store_pb2.MigrationOptions()
    store = native.CreateMetadataStore(config.SerializeToString(), options.SerializeToString())
    # One thread: a connection of SQLite's is used by one at a time.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers(store)),))
    server.add_insecure_port(f"[::]:{PORT}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
