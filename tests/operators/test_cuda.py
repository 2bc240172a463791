"""On a GPU the operators find what they find on a processor. Skipped where there is no GPU."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import ultralytics
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from models.catalog import load_catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.decode_cpu import CpuDecoder
from operators.decode_dali import DaliDecoder, dali_is_installed
from operators.decoder import DecodeLimits
from operators.findings import Detection, Findings
from operators.frame import Frame, Origin
from operators.policy import Policy
from operators.registry import build_operators

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

ASSETS = Path(ultralytics.__file__).parent / "assets"


def sign() -> np.ndarray:
    """A page with three lines, one of them turned by 90 degrees."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), 36)
    page = Image.new("RGB", (900, 600), "white")
    drawing = ImageDraw.Draw(page)
    drawing.text((60, 60), "harbour market 2184", font=font, fill="black")
    drawing.text((60, 200), "closed for repair", font=font, fill="navy")
    turned = Image.new("RGB", (420, 60), "white")
    ImageDraw.Draw(turned).text((5, 5), "platform seven", font=font, fill="black")
    page.paste(turned.rotate(90, expand=True), (700, 90))
    return np.array(page)


def pictures() -> dict[str, np.ndarray]:
    found = {name: getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea")}
    for name in ("bus", "zidane"):
        found[name] = cv2.imread(str(ASSETS / f"{name}.jpg"))[:, :, ::-1]
    china, flower = load_sample_images().images
    upside_down = np.rot90(sign(), 2)
    return found | {"china": china, "flower": flower, "sign": sign(), "turned": upside_down}


@pytest.fixture(scope="module")
def found() -> Iterator[Mapping[str, Mapping[str, Findings]]]:
    """Findings of each picture, by device and precision."""
    yield {
        "cpu": analysed(Device(torch.device("cpu"), torch.float32)),
        "fp32": analysed(Device(torch.device("cuda:0"), torch.float32)),
        "fp16": analysed(Device(torch.device("cuda:0"), torch.float16)),
        "bf16": analysed(Device(torch.device("cuda:0"), torch.bfloat16)),
    }


def analysed(device: Device) -> Mapping[str, Findings]:
    chain = OperatorChain(build_operators({}, device, load_catalog()), Policy.load(None))
    chain.setup()
    try:
        named = pictures()
        # Twice, so that the second pass runs from recordings where there are any.
        for _ in range(3):
            frames = [frame(name, pixels, device) for name, pixels in named.items()]
            chain.process(frames)
        assert all(one.failure is None for one in frames), [one.failure for one in frames]
        return {one.image_id: one.findings for one in frames}
    finally:
        chain.close()


def frame(name: str, pixels: np.ndarray, device: Device) -> Frame:
    made = Frame(name, "feed", 0, Origin("images", 0, 0, 0))
    made.pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(device.torch_device)
    return made


PRECISIONS = ("fp32", "fp16", "bf16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_objects_are_those_of_the_processor(found: Any, precision: str) -> None:
    for name, findings in found["cpu"].items():
        sure = [one for one in findings.objects if one.score > 0.35]
        here = found[precision][name].objects
        for one in sure:
            assert any(same(one, other) for other in here), (name, one, here)


def same(one: Detection, other: Detection) -> bool:
    left, top = max(one.box[0], other.box[0]), max(one.box[1], other.box[1])
    right, bottom = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one.box, other.box)]
    return one.label == other.label and shared / (sum(areas) - shared) > 0.85


@pytest.mark.parametrize(
    ("precision", "least"), [("fp32", 0.9995), ("fp16", 0.999), ("bf16", 0.99)]
)
def test_embeddings_point_where_those_of_the_processor_do(
    found: Any, precision: str, least: float
) -> None:
    for name, findings in found["cpu"].items():
        cosine = np.dot(findings.embedding.vector, found[precision][name].embedding.vector)
        assert cosine > least, (name, cosine)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0.02), ("fp16", 0.02), ("bf16", 0.04)])
def test_scores_are_those_of_the_processor(found: Any, precision: str, most: float) -> None:
    for name, findings in found["cpu"].items():
        for label, score in findings.scores.items():
            assert abs(score - found[precision][name].scores[label]) < most, (name, label)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_text_is_read_as_on_the_processor(found: Any, precision: str) -> None:
    wanted = {"harbour market 2184", "closed for repair", "platform seven"}
    assert {line.text for line in found["cpu"]["sign"].texts} == wanted
    assert {line.text for line in found[precision]["sign"].texts} == wanted
    assert {line.text for line in found[precision]["turned"].texts} == wanted
    for line in found[precision]["sign"].texts:
        other = next(o for o in found["cpu"]["sign"].texts if o.text == line.text)
        assert np.abs(np.array(line.quad) - np.array(other.quad)).max() <= 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fingerprints_are_those_of_the_processor(found: Any, precision: str) -> None:
    for name, findings in found["cpu"].items():
        bits = int(findings.fingerprint.pdq, 16) ^ int(found[precision][name].fingerprint.pdq, 16)
        assert bits.bit_count() <= 4, name


@pytest.mark.skipif(not dali_is_installed(), reason="DALI is not installed")
def test_dali_decodes_on_the_device_and_a_bad_image_fails_alone() -> None:
    device = torch.device("cuda:0")
    limits = DecodeLimits()
    decoder = DaliDecoder(device, limits, CpuDecoder(device, limits, 2), threads=2)
    photos = pictures()
    try:
        contents = {name: jpeg(pixels) for name, pixels in photos.items()}
        contents["broken"] = contents["bus"][:2000] + b"\0" * 4000 + contents["bus"][6000:]
        contents["cut"] = contents["zidane"][:20_000]
        contents["text"] = b"no image"
        for _ in range(2):  # the second batch must not write into the first one's pixels
            frames = []
            for name, content in contents.items():
                made = Frame(name, "feed", 0, Origin("images", 0, 0, 0))
                made.content = content
                frames.append(made)
            decoder.decode(frames)
        for one in frames:
            if one.image_id in photos:
                assert one.failure is None
                assert one.pixels is not None
                assert one.pixels.is_cuda
                reference = cv2.imdecode(np.frombuffer(contents[one.image_id], np.uint8), 1)
                difference = one.pixels.cpu().numpy().astype(int) - reference[:, :, ::-1]
                assert np.abs(difference).mean() < 1.5, one.image_id
        failed = {one.image_id: one.failure for one in frames if one.failed}
        assert {"cut", "text"} <= failed.keys() <= {"cut", "text", "broken"}
    finally:
        decoder.close()


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=90)
    return file.getvalue()
