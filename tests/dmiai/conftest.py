"""HTTP server for the tests of the DM i AI client."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """HTTP server on a free port, with replies by a function.

    Args:
        answer: `answer(method, path, headers, body) -> (status, headers, content)`; a reply of
            None closes the connection.

    Attributes:
        seen: (method, path, headers, body) of each request.
    """

    def __init__(self, answer):
        self.seen = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                content = json.loads(body) if body else None
                outer.seen.append((self.command, self.path, dict(self.headers), content))
                found = answer(self.command, self.path, dict(self.headers), content)
                if found is None:
                    self.close_connection = True
                    return
                status, headers, reply = found
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
