"""Archives: every extension gives the same documents; dangerous or damaged archives are refused by name."""

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile
import tracemalloc
import zipfile

import pytest
import zstandard

from hipgpt.base.errors import UserError
from hipgpt.data import archives

TEXTS = {"texts/b.txt": b"second\n", "texts/a.txt": b"first\n", "notes.md": b"not requested\n"}


def tar_bytes(texts: dict[str, bytes], *links: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        for link in links:
            archive.addfile(link)
    return file.getvalue()


def zip_bytes(texts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return file.getvalue()


def read(path, members=None) -> list[tuple[str, bytes]]:
    return [(name, b"".join(blocks)) for name, blocks in archives.documents(path, members, path.parent)]


def written(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("extension", "content"),
    [
        ("zip", zip_bytes(TEXTS)),
        ("tar", tar_bytes(TEXTS)),
        ("tar.gz", gzip.compress(tar_bytes(TEXTS))),
        ("tgz", gzip.compress(tar_bytes(TEXTS))),
        ("tar.zst", zstandard.compress(tar_bytes(TEXTS))),
        ("tar.xz", lzma.compress(tar_bytes(TEXTS))),
        ("tar.bz2", bz2.compress(tar_bytes(TEXTS))),
    ],
)
def test_matching_members_come_in_the_order_of_their_names(tmp_path, extension, content):
    path = written(tmp_path / f"corpus.{extension}", content)
    assert read(path, "texts/*.txt") == [("texts/a.txt", b"first\n"), ("texts/b.txt", b"second\n")]
    assert len(read(path)) == 3
    assert list(tmp_path.iterdir()) == [path]  # nothing was extracted


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.txt", b"one text"),
        ("text.txt.gz", gzip.compress(b"one ") + gzip.compress(b"text")),
        ("text.txt.zst", zstandard.compress(b"one ") + zstandard.compress(b"text")),
    ],
)
def test_a_compressed_file_is_one_document(tmp_path, name, content):
    assert read(written(tmp_path / name, content)) == [("text.txt", b"one text")]


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:\\evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize(("extension", "pack"), [("tar", tar_bytes), ("zip", zip_bytes)])
def test_a_member_that_points_outside_is_refused_by_name(tmp_path, extension, pack, name):
    path = written(tmp_path / f"evil.{extension}", pack({"a.txt": b"fine", name: b"evil"}))
    with pytest.raises(UserError, match="evil.txt' points outside"):
        read(path)
    assert list(tmp_path.rglob("*")) == [path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_member_that_is_no_file_is_refused_by_name(tmp_path, kind):
    link = tarfile.TarInfo("passwords.txt")
    link.type, link.linkname = kind, "/etc/passwd"
    with pytest.raises(UserError, match="'passwords.txt' is a link or a device"):
        read(written(tmp_path / "evil.tar", tar_bytes(TEXTS, link)))


def test_a_link_in_a_zip_is_refused_by_name(tmp_path):
    info = zipfile.ZipInfo("passwords.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'passwords.txt' is a link or a device"):
        read(tmp_path / "evil.zip")


@pytest.mark.parametrize(
    ("extension", "pack"),
    [
        ("txt.gz", gzip.compress),
        ("txt.zst", zstandard.compress),
        ("zip", lambda text: zip_bytes({"a": text})),
        ("tar.gz", lambda text: gzip.compress(tar_bytes({"a": text}))),
    ],
)
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, extension, pack):
    monkeypatch.setattr(archives, "UNPACKED_BYTES_ALWAYS_ALLOWED", 1000)
    path = written(tmp_path / f"bomb.{extension}", pack(bytes(30 << 20)))
    tracemalloc.start()
    with pytest.raises(UserError, match="bomb.* unpacks to more than"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def test_a_sparse_tar_member_counts_what_it_unpacks_to(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED_BYTES_ALWAYS_ALLOWED", 1000)
    info = tarfile.TarInfo("sparse.txt")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40)}
    info.pax_headers |= {"GNU.sparse.numblocks": "0", "GNU.sparse.map": f"{1 << 40},0"}
    with pytest.raises(UserError, match="unpacks to more than"):
        read(written(tmp_path / "sparse.tar", tar_bytes({}, info)))


@pytest.mark.parametrize(
    ("extension", "content"),
    [
        ("zip", zip_bytes({"a": b"text" * 100})),
        ("tar", tar_bytes({"a": b"text" * 10_000})),
        ("tar.gz", gzip.compress(tar_bytes(TEXTS))),
        ("txt.gz", gzip.compress(b"text")),
        ("txt.zst", b"no zstd"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, extension, content):
    with pytest.raises(UserError, match=f"half.{extension}: damaged"):
        read(written(tmp_path / f"half.{extension}", content[: len(content) // 2]))


def test_an_encrypted_zip_is_refused_by_name(tmp_path):
    content = bytearray(zip_bytes({"secret.txt": b"text"}))
    content[content.rindex(b"PK\1\2") + 8] |= 1  # the central directory's flag
    with pytest.raises(UserError, match="'secret.txt' is encrypted"):
        read(written(tmp_path / "locked.zip", bytes(content)))


def test_a_pattern_that_matches_nothing_says_what_is_there(tmp_path):
    with pytest.raises(UserError, match=r"no member matches '\*.text'.*notes.md, texts/a.txt"):
        read(written(tmp_path / "corpus.tar", tar_bytes(TEXTS)), "*.text")


def test_a_pattern_for_a_file_that_is_no_archive_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not an archive"):
        read(written(tmp_path / "text.txt", b"text"), "*.txt")


@pytest.mark.parametrize("cut", [1, 3, 500])
@pytest.mark.parametrize("with_checksum", [False, True])
def test_a_zst_that_ends_within_a_frame_is_damaged(tmp_path, cut, with_checksum):
    text = random.Random(0).randbytes(300_000)  # three blocks that do not compress
    frame = zstandard.ZstdCompressor(write_checksum=with_checksum).compress(text)
    path = tmp_path / "text.txt.zst"
    for content in (frame[:-cut], frame + frame[:-cut]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="text.txt.zst: damaged.*it ends within a frame"):
            read(path)
    path.write_bytes(frame + frame)
    assert read(path) == [("text.txt", text + text)]


def tar_header(kind: bytes, size: bytes) -> bytes:
    """Return a tar whose first header says this size, 12 bytes, and has a right checksum."""
    header = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157] = size, kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + b"q" * 512 + bytes(1024)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"0", b"S"])
@pytest.mark.parametrize("size", [b"\x80" + (1 << power).to_bytes(11, "big") for power in (40, 62, 80)])
def test_a_size_in_a_tar_s_header_is_not_believed(tmp_path, kind, size):
    """Without a bound Python would ask for that much memory at once, or end in a traceback."""
    with pytest.raises(UserError, match="a.tar: damaged"):
        read(written(tmp_path / "a.tar", tar_header(kind, size)))


@pytest.mark.parametrize("extension", ["zip", "tar", "tar.gz", "gz", "zst", "tar.zst"])
def test_a_file_with_changed_bytes_is_read_or_named(tmp_path, extension):
    texts, draw = {"a.txt": b"hello " * 50, "b/c.txt": b"x" * 99}, random.Random(1)
    packed = {"zip": zip_bytes(texts), "tar": tar_bytes(texts), "gz": gzip.compress(texts["a.txt"])}
    packed |= {"tar.gz": gzip.compress(packed["tar"]), "tar.zst": zstandard.compress(packed["tar"])}
    whole, refused = packed.get(extension) or zstandard.compress(texts["a.txt"]), 0
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        try:
            read(written(tmp_path / f"a.{extension}", bytes(changed)))
        except UserError as error:
            assert f"a.{extension}: " in str(error)
            refused += 1
    assert refused > 50
