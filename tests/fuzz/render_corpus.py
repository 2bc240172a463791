"""Writes the corpus: small pictures in every format, rendered here, and records and references.

    python tests/fuzz/render_corpus.py

The corpus is committed, so that a run does not depend on the versions of encoders; this says where
it came from and makes it again.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CORPUS = Path(__file__).parent / "corpus"

REFERENCES = (
    "https://images.example.com/a/b.jpg?size=1&x=%20#top",
    "http://192.0.2.1:80/x.png",
    "http://[2606:4700::1111]/x",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://0x7f.1/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://localhost./",
    "http://user:password@example.com@169.254.169.254/latest/",
    "http://example.com\\@127.0.0.1/",
    "http://ⓛocalhost/",
    "http://xn--nxasmq6b/",
    "http://public.example/a",
    "http://private.example/a",
    "file:///etc/passwd",
    "file://localhost/%2e%2e/%2e%2e/etc/passwd",
    "data:image/png;base64,iVBORw0KGgo=",
    "data:,a%20b",
    "s3://photos/a/b.jpg",
    "gs://photos/../x",
    "az://container/key",
)

RECORDS: tuple[dict[str, Any], ...] = (
    {"uri": "https://example.com/a.jpg"},
    {
        "id": "3f6a",
        "uri": "s3://photos/a.jpg",
        "feed": "camera-7",
        "captured_at": "2026-01-31T12:00:00Z",
        "lane": "bulk",
        "metadata": {"place": "Köln", "tags": ["a", "b"], "deep": {"a": {"b": [1, 2.5e3, None]}}},
        "more": True,
    },
    {"uri": "data:,x", "captured_at": 1_769_860_800_000, "metadata": {}},
)


def pictures() -> dict[str, bytes]:
    """File name to content."""
    picture = Image.new("RGB", (40, 30), "navy")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((5, 4, 30, 26), fill="orange", outline="white")
    draw.text((2, 2), "Aß", fill="white")
    other = picture.rotate(90)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"

    def movie() -> dict[str, Any]:
        return {"save_all": True, "append_images": [other.copy(), picture.copy()]}

    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "plain.jpg": (picture, "JPEG", {"exif": exif.tobytes(), "icc_profile": bytes(200)}),
        "progressive.jpg": (picture, "JPEG", {"progressive": True, "subsampling": 0}),
        "print.jpg": (picture.convert("CMYK"), "JPEG", {}),
        "grey.jpg": (picture.convert("L"), "JPEG", {"restart_marker_blocks": 2}),
        "pages.jpg": (picture, "MPO", movie()),
        "plain.png": (picture, "PNG", {"exif": exif.tobytes()}),
        "clear.png": (clear, "PNG", {}),
        "palette.png": (picture.convert("P"), "PNG", {"transparency": 1, "bits": 8}),
        "deep.png": (deep, "PNG", {}),
        "movie.png": (picture, "PNG", movie()),
        "lossy.webp": (picture, "WEBP", {"exif": exif.tobytes()}),
        "lossless.webp": (clear, "WEBP", {"lossless": True}),
        "movie.webp": (picture, "WEBP", movie()),
        "plain.gif": (picture, "GIF", {}),
        "movie.gif": (picture, "GIF", {**movie(), "transparency": 0, "disposal": 2}),
        "plain.bmp": (picture, "BMP", {}),
        "palette.bmp": (picture.convert("P"), "BMP", {}),
        "bilevel.bmp": (picture.convert("1"), "BMP", {}),
        "plain.tiff": (picture, "TIFF", {}),
        "lzw.tiff": (picture, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tiff": (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "jpeg.tiff": (picture, "TIFF", {"compression": "jpeg"}),
        "fax.tiff": (picture.convert("1"), "TIFF", {"compression": "group4"}),
        "float.tiff": (picture.convert("F"), "TIFF", {}),
        "big.tiff": (picture, "TIFF", {"big_tiff": True}),
        "pages.tiff": (picture, "TIFF", movie()),
        "plain.avif": (picture, "AVIF", {"exif": exif.tobytes()}),
        "clear.avif": (clear, "AVIF", {}),
        "movie.avif": (picture, "AVIF", movie()),
    }
    found = {}
    for name, (image, kind, options) in kinds.items():
        buffer = io.BytesIO()
        # Saving leaves settings behind in the picture.
        image.copy().save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    return found


def main() -> None:
    for kind in ("images", "records", "references"):
        (CORPUS / kind).mkdir(parents=True, exist_ok=True)
    for name, content in pictures().items():
        (CORPUS / "images" / name).write_bytes(content)
    for number, record in enumerate(RECORDS):
        text = json.dumps(record, ensure_ascii=False)
        (CORPUS / "records" / f"{number}.json").write_text(text, encoding="utf-8")
    (CORPUS / "references" / "all.txt").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
