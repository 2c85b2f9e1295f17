"""`colorbench weights`: files of published weights, from disk and from a server of this machine."""

import hashlib
import os
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import filelock
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, one_line
from run_folders import IMAGES, FakeRun

import colorbench as package
from colorbench import UserError, download

NAME = "tiny-weights.pth"


class Server(BaseHTTPRequestHandler):
    """Gives `server.content`, or the part after a Range; each attribute of the server is a way of doing worse."""

    def do_GET(self):
        server, content = self.server, self.server.content
        server.asked.append(self.headers.get("Range"))
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if "Range" in self.headers else 0
        start = start if server.ranges else 0
        status = 302 if self.path == "/moved" else 416 if start and start >= len(content) else server.status
        self.send_response(206 if start and status == 200 else status)
        if status != 200:
            self.send_header("Location", server.moved_to)
            content = b""
        elif start:
            self.send_header("Content-Range", f"bytes {start + server.shift}-{len(content) - 1}/{len(content)}")
        if server.tells_length:
            self.send_header("Content-Length", server.length or str(len(content[start:])))
        self.end_headers()
        self.wfile.write(content[start : server.cut_at])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(serving, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    serving.asked, serving.status, serving.ranges, serving.shift = [], 200, True, 0
    serving.tells_length, serving.cut_at, serving.length, serving.moved_to = True, None, "", "/file"
    return serving


class Place:
    """The folder of kept weights, a plugin whose model has some, and the file of these."""

    def __init__(self, folder, server):
        self.kept, self.plugin, self.file = folder / "kept", folder / "tiny.py", folder / "mine.pth"
        torch.manual_seed(1)
        self.state = {"convolution.weight": torch.rand(2, 1, 1, 1), "convolution.bias": torch.rand(2)}
        torch.save(self.state, self.file)
        self.content = server.content = self.file.read_bytes()
        self.address = f"http://127.0.0.1:{server.server_port}"
        self.declare(f"{self.address}/file")

    def declare(self, url, sha256=None):
        sha256 = sha256 or hashlib.sha256(self.content).hexdigest()
        weights = (NAME, url, "https://example.org", sha256, "MIT", "ImageNet", len(self.content))
        text = TINY.replace("OPTIONS))", f"OPTIONS, weights=[PublishedWeights{weights!r}]))")
        self.plugin.write_text(text.replace("import ModelSpec", "import ModelSpec, PublishedWeights"))

    @property
    def whole(self):
        """Whether the file is kept, and is what it has to be; nothing else is kept as if it were."""
        there = [path for path in self.kept.glob("*") if not path.name.startswith(".")] if self.kept.exists() else []
        assert [path.name for path in there] in ([], [NAME])
        return bool(there) and there[0].read_bytes() == self.content


@pytest.fixture
def place(tmp_path, monkeypatch, server):
    monkeypatch.setenv("COLORBENCH_WEIGHTS", str(tmp_path / "kept"))
    return Place(tmp_path, server)


@pytest.fixture
def weights(colorbench, place):
    return lambda *arguments: colorbench("weights", *arguments, "--plugin", place.plugin)


def refused(result, *words):
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert all(word in one_line(result) for word in words), result.stderr
    return True


def test_a_file_is_added_listed_verified_and_used(weights, colorbench, place, tmp_path, photo_zip):
    common = ("run", "--models", "tiny", "--data", photo_zip, "--preset", "smoke", "--plugin", place.plugin,
              "--no-timing", "--out", tmp_path / "run")  # fmt: skip
    assert refused(colorbench(*common, "--weights", "tiny"), "tiny-weights.pth is not kept", "weights fetch tiny")
    assert "not kept" in weights("list").stdout
    assert weights("add", "tiny", place.file).stdout == f"{place.kept / NAME}\n"
    assert place.whole
    (row,) = (line for line in weights("list").stdout.splitlines() if NAME in line)
    for said in ("tiny ", " kept ", "trained on ImageNet", "MIT", hashlib.sha256(place.content).hexdigest()):
        assert said in row
    assert "not kept" not in row
    assert weights("verify").stdout == f"{NAME}: sound\n"
    result = colorbench(*common, "--weights", "tiny")
    assert result.exit_code == 0, result.stderr
    assert "| tiny (trained elsewhere, on ImageNet) " in result.stdout
    assert f"published weights {NAME}" in result.stdout
    assert pd.read_csv(tmp_path / "run/comparison.csv")["trained"].tolist() == ["elsewhere, on ImageNet"]
    for word in ("published", NAME):
        loaded = package.load_model("tiny", weights=word, plugins=place.plugin).state_dict()
        assert all(torch.equal(loaded[name], place.state[name]) for name in place.state)


def test_a_row_says_what_its_weights_were_trained_on_if_that_is_known(tmp_path):
    run, file = FakeRun(tmp_path, ["known", "unknown", "own"], (0,)), {"file": "w.pth", "sha256": "5" * 64}
    run.cell("known", 0, np.full(IMAGES, 9.0), weights=file, trained_on="ImageNet|COCO")
    run.cell("unknown", 0, np.full(IMAGES, 8.0), weights=file)
    run.cell("own", 0, np.full(IMAGES, 7.0))
    table = package.open_run(tmp_path).report()
    for cell in (r"| known (trained elsewhere, on ImageNet\|COCO) ", "| unknown (trained elsewhere) ", "| own "):
        assert cell in table
    assert "unknown was not trained: published weights w.pth (SHA-256 555555555555).\n" in table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-1], "bytes, not"),
        (lambda content: content[:-1] + b"x", "its SHA-256 is"),
        (None, "No such file"),
    ],
)
def test_another_file_is_not_added(weights, place, change, said):
    place.file.write_bytes(change(place.content)) if change else place.file.unlink()
    assert refused(weights("add", "tiny", place.file), str(place.file), said)
    assert not place.whole
    assert weights("verify").stdout == ""


def test_a_file_that_does_not_fit_the_model_is_not_added(weights, place):
    torch.save(place.state | {"convolution.bias": torch.rand(3)}, place.file)
    place.content = place.file.read_bytes()
    place.declare("")
    assert refused(
        weights("add", "tiny", place.file), f"{place.file} does not fit", "convolution.bias is (3,), not (2,)"
    )
    assert not place.whole


def test_a_file_that_is_refused_leaves_alone_what_was_fetched_so_far(weights, place):
    (part := place.kept / f".{NAME}.part").parent.mkdir()
    part.write_bytes(place.content[:700])
    place.file.write_bytes(b"x" * len(place.content))
    assert refused(weights("add", "tiny", place.file), "its SHA-256 is")
    assert {path.name for path in place.kept.iterdir()} - {f".{NAME}.lock"} == {part.name}
    assert part.read_bytes() == place.content[:700]


def test_two_commands_do_not_make_the_same_file(weights, place):
    place.kept.mkdir()
    with filelock.FileLock(place.kept / f".{NAME}.lock"):
        assert refused(weights("fetch", "tiny"), "is being fetched by another command")


@pytest.mark.parametrize(("name", "said"), [("tinny", "did you mean 'tiny'?"), ("cnn", "no published weights of cnn")])
def test_a_model_without_published_weights_is_told(weights, place, name, said):
    assert refused(weights("add", name, place.file), said)
    assert refused(weights("fetch", name), said)


def test_verify_names_what_is_damaged_or_unknown(weights, place):
    weights("add", "tiny", place.file)
    (place.kept / NAME).write_bytes(place.content[:-1] + b"x")
    (place.kept / "other.pth").touch()
    result = weights("verify")
    assert result.exit_code == 1
    assert re.fullmatch(f"other.pth: no plugin .*\n{NAME}: its SHA-256 is .*\n", result.stdout)
    with pytest.raises(UserError, match=r"is damaged: its SHA-256 is .*; run colorbench weights fetch tiny"):
        package.load_model("tiny", weights="published", plugins=place.plugin)


@pytest.mark.parametrize("path", ["/file", "/moved"])
def test_weights_are_fetched_once(weights, place, server, path):
    place.declare(place.address + path)
    assert weights("fetch", "tiny").exit_code == 0
    assert place.whole
    assert [path.name for path in place.kept.iterdir() if path.suffix == ".part"] == []
    asked = len(server.asked)
    assert weights("fetch", NAME).exit_code == 0
    assert len(server.asked) == asked
    (place.kept / NAME).write_bytes(b"damaged")
    assert weights("fetch", "tiny").exit_code == 0
    assert place.whole


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("tells_length", [True, False])
def test_what_was_cut_off_is_gone_on_with(weights, place, server, ranges, tells_length, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 100)
    server.cut_at, server.ranges, server.tells_length = 700, ranges, tells_length
    assert refused(weights("fetch", "tiny"), "cut off after 700 of", "goes on from there")
    assert not place.whole
    server.cut_at = None
    assert weights("fetch", "tiny").exit_code == 0
    assert place.whole
    assert server.asked == [None, "bytes=700-"]


@pytest.mark.parametrize("fault", ["another place", "too long", "another beginning"])
def test_a_part_that_cannot_be_gone_on_with_is_begun_anew(weights, place, server, fault):
    part = place.kept / f".{NAME}.part"
    place.kept.mkdir()
    part.write_bytes(place.content + b"x" if fault == "too long" else b"x" * 700)
    server.shift = 1 if fault == "another place" else 0
    result = weights("fetch", "tiny")
    if fault == "another beginning":  # which only the hash of the whole can tell
        assert refused(result, "was not kept", "its SHA-256 is")
        result = weights("fetch", "tiny")
    assert result.exit_code == 0, result.stderr
    assert place.whole


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 404}, ["answers 404", "weights add tiny FILE"]),
        ({"status": 503}, ["answers 503"]),
        ({"content": b"<html>Please log in</html>"}, ["the file there has 26 bytes"]),
        ({"content": b"<html>Please log in</html>", "tells_length": False}, ["cut off after 26 of"]),
    ],
)
def test_what_a_server_refuses_or_gives_instead_is_one_line(weights, place, server, fault, said):
    for name, value in fault.items():
        setattr(server, name, value)
    assert refused(weights("fetch", "tiny"), *said)
    assert not place.whole


@pytest.mark.parametrize("name", [NAME, f".{NAME}.part", f".{NAME}.new"])
def test_a_folder_or_pipe_in_the_place_of_a_file_is_no_dead_end(weights, place, server, name):
    verb = ("add", "tiny", place.file) if name.endswith(".new") else ("fetch", "tiny")
    (place.kept / name).mkdir(parents=True)
    assert refused(weights(*verb), f"{name} is a folder; remove it")
    assert server.asked == []
    (place.kept / name).rmdir()
    os.mkfifo(place.kept / name)
    assert weights(*verb).exit_code == 0
    assert place.whole


def test_a_file_in_the_place_of_the_folder_is_said(weights, place):
    place.kept.write_text("a file")
    for verb in (("add", "tiny", place.file), ("fetch", "tiny"), ("verify",)):
        assert refused(weights(*verb), "kept is not a folder; set COLORBENCH_WEIGHTS to one")


def test_a_file_of_another_hash_is_not_kept(weights, place, server):
    server.content = place.content[:-1] + b"x"
    for _ in range(2):
        assert refused(weights("fetch", "tiny"), "was not kept", "its SHA-256 is")
    server.content, server.tells_length = place.content + b"x", False
    assert refused(weights("fetch", "tiny"), "sends more than")
    assert not place.whole


@pytest.mark.parametrize(
    ("address", "said"),
    [("http://[::1", "Invalid IPv6 URL"), (f"http://{'x' * 70}.invalid/", "label empty or too long")],
)
def test_what_is_moved_to_no_address_is_one_line(weights, place, server, address, said):
    place.declare(f"{place.address}/moved")
    server.moved_to = address
    assert refused(weights("fetch", "tiny"), f"cannot fetch {place.address}/moved: ", said)


def test_a_length_of_too_many_digits_is_none(weights, place, server):
    server.length = "9" * 5000
    assert weights("fetch", "tiny").exit_code == 0
    assert place.whole


def test_certificates_that_are_not_there_are_one_line(weights, place, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place.kept / "none.pem"))
    place.declare("https://127.0.0.1:9/file")
    assert refused(weights("fetch", "tiny"), "TLS CA certificate bundle", "none.pem")


@pytest.mark.parametrize("command", [("fetch", "tiny"), ("add", "tiny", "FILE")])
def test_what_a_link_in_the_folder_leads_to_is_not_written(weights, place, command):
    (other := place.kept.with_name("other")).write_bytes(b"not ours")
    place.kept.mkdir()
    for ending in ("part", "new"):
        (place.kept / f".{NAME}.{ending}").symlink_to(other)
    assert weights(*(place.file if word == "FILE" else word for word in command)).exit_code == 0
    assert other.read_bytes() == b"not ours"
    assert place.whole


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/file", "no connection to 127.0.0.1:9"),
        ("http://nowhere.invalid/file", "no connection to nowhere.invalid"),
        ("", "has no address of its own"),
    ],
)
def test_without_network_or_address_it_is_one_line(weights, place, url, said):
    place.declare(url)
    assert refused(weights("fetch", "tiny"), said, "run colorbench weights add tiny FILE")


def test_a_full_disk_keeps_what_came(weights, place, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            raise OSError(28, "No space left on device", "part")

    monkeypatch.setattr(download, "tqdm", Full)
    assert refused(weights("fetch", "tiny"), "the disk is full", "run the same command again")
    assert not place.whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "../x"}, "name the file in letters"),
        ({"sha256": "12"}, "sha256 is"),
        ({"page": "ftp://x"}, "https://"),
        ({"url": "ftp://x"}, "https://"),
        ({"url": "https://x"}, "size is 0; give the bytes"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(change, said):
    sound = {"file": NAME, "url": "", "page": "https://x", "sha256": "0" * 64, "licence": "", "trained_on": ""}
    assert package.PublishedWeights(**sound).size == 0
    with pytest.raises(ValueError, match=said):
        package.PublishedWeights(**(sound | change))


def test_two_plugins_that_tell_differently_of_one_file_are_named(place, tmp_path):
    (tmp_path / "two.py").write_text(place.plugin.read_text().replace('"tiny"', '"tinier"').replace("MIT", "BSD")
                                     .replace('"on-tiny"', '"on-tinier"'))  # fmt: skip
    with pytest.raises(UserError, match="tiny and tinier differ about"):
        package.load_model("tiny", weights="published", plugins=[place.plugin, tmp_path / "two.py"])
