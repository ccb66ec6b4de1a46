"""A registry on loopback that holds bytes back, cuts connections and counts: what a bad link does to a pull. Serves the blobs of a
packed store as they lie in its folder. Standard library only; used by tests/bench/run."""
import http.server, json, os, pathlib, random, shutil, signal, socketserver, statistics, subprocess, tempfile, threading, time


class Link:
    def __init__(self, blobs):
        self.blobs, self.tags = pathlib.Path(blobs), {}
        self.rate = self.cut_every = 0  # bytes a second, all connections together; body bytes per connection
        self.lock, self.due = threading.Lock(), 0.0
        self.forget()
        link = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

            def answer(self, with_body):
                name = self.path.rsplit("/", 1)[-1]
                file = link.blobs / (name[7:] if name.startswith("sha256:") else link.tags.get(name, "none"))
                with link.lock:
                    link.requests.append(self.path)
                if not file.is_file():
                    self.send_response(404)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                size, begin = file.stat().st_size, 0
                asked = self.headers.get("range", "")
                if asked.startswith("bytes="):
                    begin = int(asked[6:].split("-")[0])
                self.send_response(206 if asked else 200)
                if asked:
                    self.send_header("content-range", f"bytes {begin}-{size - 1}/{size}")
                self.send_header("content-type", "application/vnd.oci.image.manifest.v1+json" if "/manifests/" in self.path else "application/octet-stream")
                self.send_header("content-length", str(size - begin))
                self.end_headers()
                if not with_body:
                    return
                left = getattr(self, "left", link.cut_every or 1 << 62)
                with open(file, "rb") as source:
                    source.seek(begin)
                    while piece := source.read(min(8192, left) if left else 0):
                        link.wait(len(piece))
                        try:
                            self.wfile.write(piece)
                        except OSError:
                            self.close_connection = True
                            return
                        left -= len(piece)
                        with link.lock:
                            link.sent += len(piece)
                self.left = left
                if left <= 0:
                    self.close_connection = True

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forget(self):
        self.requests, self.sent = [], 0

    def wait(self, count):
        if not self.rate:
            return
        with self.lock:
            now = time.monotonic()
            at = max(self.due, now)
            self.due = at + count / self.rate
        time.sleep(max(0, at - now))

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def measure(mote, row):
    with tempfile.TemporaryDirectory(prefix="mote-bench-") as work:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        link = Link(work + "/origin/images/blobs")

        def image(tag, layers):
            """Layers of noise: `{name: bytes}`. Compressed bytes of all of them."""
            arguments = []
            for name, size in layers.items():
                folder = pathlib.Path(work, "sources", name)
                if not folder.exists():
                    folder.mkdir(parents=True)
                    (folder / name).write_bytes(random.Random(name).randbytes(size))
                arguments += ["--layer", str(folder)]
            out = subprocess.run([mote, "image", "pack", "--data-dir", work + "/origin", "-o", "json", "--cmd", tag, *arguments, f"127.0.0.1:{link.port}/x:{tag}"], check=True, capture_output=True)
            link.tags[tag] = json.loads(out.stdout)["images"][0]["digest"][7:]
            manifest = json.loads((link.blobs / link.tags[tag]).read_text())
            return sum(layer["size"] for layer in manifest["layers"])

        def pull(tag, into="pulled", start=False):
            command = [mote, "image", "pull", "--data-dir", f"{work}/{into}", f"127.0.0.1:{link.port}/x:{tag}"]
            if start:
                return subprocess.Popen(command, **quiet)
            began = time.monotonic()
            subprocess.run(command, check=True, **quiet)
            return time.monotonic() - began

        def anew(rate=0, cut_every=0):
            shutil.rmtree(work + "/pulled", ignore_errors=True)
            link.rate, link.cut_every = rate, cut_every
            link.forget()

        try:
            size = image("link", {"large": 6_000_000, "small": 2_000_000})
            anew(cut_every=500_000)
            pull("link")
            row("pull, link cut every 500 kB: bytes sent / needed", "1.02", f"{link.sent / size:.3f}", link.sent <= size * 1.02, f"{size / 1e6:.1f} MB")
            anew(rate=400_000)
            took = pull("link")
            row("pull at 400 kB/s: time / that of the bytes alone", "1.05", f"{took / (size / 400_000):.3f}", took <= size / 400_000 * 1.05, f"{took:.1f} s, {link.sent / size:.3f} of the bytes")
            anew(rate=400_000)
            for part in (0.3, 0.6):
                process = pull("link", start=True)
                while link.sent < size * part and process.poll() is None:
                    time.sleep(0.01)
                process.send_signal(signal.SIGKILL)
                process.wait()
            link.rate = 0
            time.sleep(0.3)
            pull("link")
            row("pull killed twice (SIGKILL): bytes sent / needed", "1.25", f"{link.sent / size:.3f}", link.sent <= size * 1.25, "what was in the sockets is lost")
            times = []
            for _ in range(21):
                link.forget()
                times.append(pull("link"))
            row("pull, nothing to do: whole process", "20 ms", f"{statistics.median(times) * 1000:.1f} ms", statistics.median(times) < 0.02, f"{len(link.requests)} request")
            for n in range(10):
                image(f"ten{n}", {"base": 5_000_000, f"own{n}": 20_000})
            anew()
            running = [pull(f"ten{n}", start=True) for n in range(10)]
            if any(process.wait() for process in running):
                raise SystemExit("a pull of ten at once failed")
            base = json.loads((link.blobs / link.tags["ten0"]).read_text())["layers"][0]["digest"]
            asked = sum(path.endswith(base) for path in link.requests)
            row("ten images at once that share a base: base fetched", "1 time", f"{asked} time(s)", asked == 1, f"{len(os.listdir(work + '/pulled/images/layers'))} layers on disk")
        finally:
            link.close()
